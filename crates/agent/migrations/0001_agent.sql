-- What an agent knows that the machine itself cannot tell it. What runs is asked of the machine, never of these tables.

CREATE TABLE generation (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    highest  INTEGER NOT NULL
) STRICT;
INSERT INTO generation VALUES (1, 0);

-- A VM that this agent made, or a foreign one that it attached far memory to.
CREATE TABLE vms (
    name       TEXT PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    spec       TEXT NOT NULL,               -- JSON: vm::Spec
    process    TEXT,                        -- JSON: process id and start time; null while it does not run
    created_ms INTEGER NOT NULL
) STRICT;

-- Physical attachments: entries of the RMC (D4.1 §4), and the VM that has them logically.
CREATE TABLE attachments (
    id    TEXT PRIMARY KEY,
    entry TEXT NOT NULL,                    -- JSON
    vm    TEXT REFERENCES vms (name)
) STRICT;

CREATE TABLE operations (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    target     TEXT NOT NULL,
    work       TEXT NOT NULL,               -- JSON: what is to be done
    state      TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
    step       TEXT NOT NULL,
    progress   REAL NOT NULL,
    error      TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;
-- Two operations on one VM at a time would undo each other.
CREATE UNIQUE INDEX one_operation_per_target ON operations (target) WHERE state = 'running';
CREATE INDEX operations_by_age ON operations (created_ms);

-- The journal: from these an operation goes on after its agent died.
CREATE TABLE records (
    operation TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    sequence  INTEGER NOT NULL,
    record    TEXT NOT NULL,                -- JSON: operation::Record
    at_ms     INTEGER NOT NULL,
    PRIMARY KEY (operation, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms    INTEGER NOT NULL,
    event    TEXT NOT NULL                  -- JSON
) STRICT;

CREATE TABLE idempotency_keys (
    key        TEXT PRIMARY KEY,
    request    TEXT NOT NULL,               -- what the key was used for: method, path and body, hashed
    answer     TEXT NOT NULL,               -- JSON: what was answered
    created_ms INTEGER NOT NULL
) STRICT;
