-- What a controller decided and must not forget. What bricks and switches really have is asked of them, never of these tables.

CREATE TABLE state (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    reign        INTEGER NOT NULL,
    reservation  INTEGER NOT NULL,           -- the number that was given last
    snapshot     TEXT,                       -- JSON: Snapshot of the rack
    snapshot_seq INTEGER NOT NULL            -- the last event that is in it
) STRICT;
INSERT INTO state VALUES (1, 0, 0, NULL, 0);

-- Everything that happened to the rack, in order, with the operation that caused it.
CREATE TABLE history (
    seq       INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    operation TEXT,
    event     TEXT NOT NULL                  -- JSON: Event of the rack
) STRICT;

CREATE TABLE operations (
    seq             INTEGER PRIMARY KEY,
    record          TEXT NOT NULL,           -- JSON: Operation of the API
    job             TEXT NOT NULL,           -- JSON: what is to be done
    begun           INTEGER NOT NULL,        -- steps that were begun
    undone          INTEGER NOT NULL,        -- steps back that were begun
    idempotency_key TEXT UNIQUE,
    fingerprint     INTEGER
) STRICT;

-- Plans that are held and not carried out yet.
CREATE TABLE plans (
    reservation INTEGER PRIMARY KEY,
    plan        TEXT NOT NULL                -- JSON: Plan of the rack
) STRICT;

-- What was told to whoever listens.
CREATE TABLE events (
    id    INTEGER PRIMARY KEY,
    event TEXT NOT NULL                      -- JSON: Event of the API
) STRICT;
