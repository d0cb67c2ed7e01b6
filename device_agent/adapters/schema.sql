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
    reference INTEGER NOT NULL DEFAULT 0,
    lazy TEXT,
    deltas TEXT,
    delta_digests BLOB,
    PRIMARY KEY (task, round)
) WITHOUT ROWID;
-- What the last uploads took: until their receiver's first word.
CREATE TABLE upload_times (
    number INTEGER PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL
);
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_created ON jobs (created_s);

-- What a round has left for the task's next one, in force once the round is counted: its float32
-- values here when they are few, else as an object.
CREATE TABLE memories (
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    payload BLOB,
    error REAL NOT NULL,
    clock INTEGER NOT NULL,
    mark TEXT NOT NULL,
    PRIMARY KEY (task, round)
);
