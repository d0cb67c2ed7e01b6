-- The device's tables beside the outbox. Times are unix seconds; JSON is that of the schemas' models.

-- One job a row: one round of one task, and all that is needed to do it again after a crash.
CREATE TABLE jobs (
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    state TEXT NOT NULL,
    code TEXT,
    reason TEXT,
    starts INTEGER NOT NULL,
    xfer TEXT,
    plan TEXT NOT NULL,
    model TEXT NOT NULL,
    digests BLOB NOT NULL,
    deadline_s REAL NOT NULL,
    created_s REAL NOT NULL,
    settled TEXT,
    receipt TEXT,
    graph TEXT,
    graph_digests BLOB,
    deltas TEXT,
    delta_digests BLOB,
    PRIMARY KEY (task, round)
) WITHOUT ROWID;
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_created ON jobs (created_s);
