-- Deeds: the secrets that open the segments which this controller makes on memory servers. One is here before its segment is made.

CREATE TABLE deeds (
    segment INTEGER PRIMARY KEY,             -- the controller's own number of it
    brick   TEXT NOT NULL,                   -- the memory brick
    owner   BLOB NOT NULL,                   -- 16 bytes, the secret
    id      INTEGER,                         -- its id on the memory server, once that is known
    epoch   INTEGER                          -- the life of the server in which it was made
) STRICT;
