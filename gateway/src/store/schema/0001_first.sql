-- The same text for SQLite and PostgreSQL. Times are milliseconds since 1970 (UTC); lists and records are JSON texts.

-- One row: who owns everything here.
CREATE TABLE account (
    only_one BIGINT PRIMARY KEY CHECK (only_one = 1),
    id TEXT NOT NULL
);

CREATE TABLE admin_keys (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE identities (
    id TEXT PRIMARY KEY,
    created_at BIGINT NOT NULL
);

-- Only the hash: who reads this table cannot use a token.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);

CREATE INDEX tokens_of_identity ON tokens (identity);

CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    -- 'external' or 'embedded', and what that kind needs, as JSON.
    kind TEXT NOT NULL,
    definition TEXT NOT NULL,
    state TEXT NOT NULL,
    state_since BIGINT NOT NULL,
    -- Of the current run.
    instance TEXT,
    endpoint TEXT,
    workdir TEXT,
    -- Seconds; NULL is never.
    idle_timeout BIGINT,
    last_activity BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE grants (
    id TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    vm TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    -- A JSON list of Linux users; NULL is any.
    allowed_users TEXT,
    granted_at BIGINT NOT NULL,
    granted_by TEXT NOT NULL,
    PRIMARY KEY (identity, vm)
);

CREATE INDEX grants_of_vm ON grants (vm);

-- No foreign keys: what happened stays, whoever is deleted.
CREATE TABLE audit_events (
    operation TEXT NOT NULL,
    -- 'start' or 'end'.
    phase TEXT NOT NULL,
    at BIGINT NOT NULL,
    vm TEXT,
    identity TEXT,
    event TEXT NOT NULL,
    PRIMARY KEY (operation, phase)
);

CREATE INDEX audit_events_by_time ON audit_events (at, operation, phase);
