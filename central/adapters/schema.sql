-- Central's tables. Times are unix seconds, sizes bytes, JSON is that of the schemas' models.

-- One task a row: what was asked, what was resolved from it, and how far it is.
CREATE TABLE IF NOT EXISTS tasks (
    task TEXT PRIMARY KEY,
    submission TEXT NOT NULL,
    min_clients INTEGER NOT NULL,
    created_s REAL NOT NULL,
    ended_s REAL,
    progress TEXT NOT NULL,
    plan TEXT,
    strategy_state BLOB,
    model_sha256 TEXT,
    metrics TEXT NOT NULL,
    totals TEXT NOT NULL,
    graph_sha256 TEXT,
    lazy TEXT
) STRICT;

-- One round a row; its reported clients are the rows of contributions.
CREATE TABLE IF NOT EXISTS rounds (
    task TEXT NOT NULL REFERENCES tasks (task) ON DELETE CASCADE,
    round INTEGER NOT NULL,
    state TEXT NOT NULL,
    base_model_sha256 TEXT NOT NULL,
    base_model_bytes INTEGER NOT NULL,
    opened_s REAL NOT NULL,
    ended_s REAL,
    contributors TEXT,
    model_sha256 TEXT,
    summary TEXT,
    delta_sha256 TEXT,
    delta_bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task, round)
) STRICT;

-- An accepted update; the primary key is what makes a contribution count once.
CREATE TABLE IF NOT EXISTS contributions (
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    device TEXT NOT NULL,
    region TEXT NOT NULL,
    xfer TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    num_examples INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    accepted_s REAL NOT NULL,
    settled TEXT CHECK (settled IN ('counted', 'discarded')),
    reason TEXT,
    reference INTEGER NOT NULL DEFAULT 0,
    uplink_wire_bytes INTEGER NOT NULL DEFAULT 0,
    downlink_wire_bytes INTEGER NOT NULL DEFAULT 0,
    codec TEXT,
    codec_params TEXT,
    PRIMARY KEY (task, round, device),
    FOREIGN KEY (task, round) REFERENCES rounds (task, round) ON DELETE CASCADE
) STRICT;

-- The bytes of a small update, apart from what is said of it: settling a contribution rewrites
-- its row, and must not rewrite these. A large update is a file named by its digest.
CREATE TABLE IF NOT EXISTS payloads (
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    device TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (task, round, device),
    FOREIGN KEY (task, round, device) REFERENCES contributions (task, round, device)
        ON DELETE CASCADE
) STRICT;

-- A final no to a transfer, so that the same question gets the same answer.
CREATE TABLE IF NOT EXISTS refusals (
    xfer TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    device TEXT NOT NULL,
    status TEXT NOT NULL,
    code TEXT,
    detail TEXT,
    at_s REAL NOT NULL
) STRICT;

-- Devices that cannot or will not work for a task; they are not asked for it again.
CREATE TABLE IF NOT EXISTS unwilling (
    task TEXT NOT NULL,
    device TEXT NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (task, device)
) STRICT;

-- The registry: what each device last said of itself, ordered by (boot, seq).
CREATE TABLE IF NOT EXISTS devices (
    device TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    boot INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    is_online INTEGER NOT NULL,
    state TEXT NOT NULL,
    changed_s REAL NOT NULL
) STRICT;

-- Up to where the bytes that a device counts in one life are counted for a contribution.
CREATE TABLE IF NOT EXISTS traffic (
    device TEXT PRIMARY KEY,
    boot INTEGER NOT NULL,
    sent_bytes INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS gateways (
    region TEXT PRIMARY KEY,
    boot INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    is_online INTEGER NOT NULL,
    state TEXT NOT NULL,
    changed_s REAL NOT NULL
) STRICT;

-- Each restore of this database from a backup, and why updates that were receipted after the
-- backup are in no aggregate: their rounds lie below the epoch's million and have no row.
CREATE TABLE IF NOT EXISTS restores (
    at_s REAL NOT NULL,
    backup_s REAL NOT NULL,
    epoch INTEGER NOT NULL,
    handled INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Which round of a device was counted last, and how far back that may lie.
CREATE INDEX IF NOT EXISTS contributions_counted ON contributions (task, device, round)
    WHERE settled = 'counted';
CREATE INDEX IF NOT EXISTS rounds_committed ON rounds (task, round)
    WHERE model_sha256 IS NOT NULL;
CREATE INDEX IF NOT EXISTS contributions_by_sha ON contributions (sha256);
CREATE INDEX IF NOT EXISTS tasks_by_time ON tasks (created_s);
CREATE INDEX IF NOT EXISTS tasks_by_model ON tasks (model_sha256);
CREATE INDEX IF NOT EXISTS tasks_by_graph ON tasks (graph_sha256);
CREATE INDEX IF NOT EXISTS rounds_by_model ON rounds (base_model_sha256);
CREATE INDEX IF NOT EXISTS rounds_by_delta ON rounds (delta_sha256);
CREATE INDEX IF NOT EXISTS refusals_by_round ON refusals (task, round);
