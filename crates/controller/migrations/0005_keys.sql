-- A key is one's own: another may have the same. Who has which is the ledger's affair.
CREATE TABLE operations_anew (
    seq             INTEGER PRIMARY KEY,
    record          TEXT NOT NULL,           -- JSON: Operation of the API
    job             TEXT NOT NULL,           -- JSON: what is to be done
    begun           INTEGER NOT NULL,        -- steps that were begun
    undone          INTEGER NOT NULL,        -- steps back that were begun
    idempotency_key TEXT,
    fingerprint     INTEGER
) STRICT;
INSERT INTO operations_anew SELECT seq, record, job, begun, undone, idempotency_key, fingerprint FROM operations;
DROP TABLE operations;
ALTER TABLE operations_anew RENAME TO operations;
