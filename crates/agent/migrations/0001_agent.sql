-- What an agent knows that the machine itself cannot tell it. What runs is asked of the machine, never of these tables.

CREATE TABLE generation (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    highest  INTEGER NOT NULL
) STRICT;
INSERT INTO generation VALUES (1, 0);

-- A VM that this agent made, or a foreign one that it attached far memory to.
CREATE TABLE vms (
    name   TEXT PRIMARY KEY,
    record TEXT NOT NULL                    -- JSON: VmRecord
) STRICT, WITHOUT ROWID;

-- Physical attachments: entries of the RMC (D4.1 §4), and the VM that has them logically.
CREATE TABLE attachments (
    id         TEXT PRIMARY KEY,
    entry      TEXT NOT NULL,               -- JSON: Attachment of the API
    vm         TEXT REFERENCES vms (name),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE operations (
    id              TEXT PRIMARY KEY,
    kind            TEXT NOT NULL,
    target          TEXT NOT NULL,
    work            TEXT NOT NULL,          -- JSON: what is to be done
    state           TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
    step            TEXT,
    progress        REAL NOT NULL,
    error           TEXT,                   -- JSON: Problem of the API
    note            TEXT,
    generation      INTEGER NOT NULL,
    by              TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    fingerprint     INTEGER,                -- of the request that came with the key
    created_ms      INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL
) STRICT;
-- Two operations on one VM at a time would undo each other.
CREATE UNIQUE INDEX one_operation_per_target ON operations (target) WHERE state = 'running';
CREATE INDEX operations_by_age ON operations (created_ms);

-- The journal: from these an operation goes on after its agent died.
CREATE TABLE records (
    sequence  INTEGER PRIMARY KEY,
    operation TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    record    TEXT NOT NULL                 -- JSON: operation::Record
) STRICT;
CREATE INDEX records_by_operation ON records (operation);

CREATE TABLE events (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms  INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL,
    operation TEXT                          -- JSON: Operation of the API
) STRICT;
