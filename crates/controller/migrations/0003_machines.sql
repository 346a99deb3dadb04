-- Virtual machines over the rack: what was asked for, and what the controller has made of it.
CREATE TABLE machines (
    name   TEXT PRIMARY KEY,
    record TEXT NOT NULL                     -- JSON: Machine
) STRICT;
