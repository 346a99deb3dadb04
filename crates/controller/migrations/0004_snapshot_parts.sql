-- The rack's snapshot lies in many rows: a large one as a single text would need its size in memory again.

CREATE TABLE snapshot (
    part INTEGER PRIMARY KEY,
    rack TEXT NOT NULL                       -- JSON: Snapshot of the rack with some of what is in it
) STRICT;
INSERT INTO snapshot SELECT 1, snapshot FROM state WHERE snapshot IS NOT NULL;
ALTER TABLE state DROP COLUMN snapshot;
