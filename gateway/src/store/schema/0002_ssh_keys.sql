-- SSH public keys of identities. A key is one identity's alone: whoever shows it is that identity.
CREATE TABLE ssh_keys (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    -- As ssh-keygen prints it: SHA256:…
    fingerprint TEXT NOT NULL UNIQUE,
    -- As in authorized_keys(5), without the comment.
    public_key TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX ssh_keys_of_identity ON ssh_keys (identity);
