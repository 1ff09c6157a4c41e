-- The first schema. Files of this folder are numbered, run in order, and never edited after a release.
-- Times are nanoseconds since 1970 (UTC). Every object belongs to a namespace by name.

CREATE TABLE namespaces (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- kind: namespace, image, container, content, lease, snapshot/<snapshotter>
CREATE TABLE labels (
    ns     TEXT NOT NULL,
    kind   TEXT NOT NULL,
    object TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (ns, kind, object, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    ns              TEXT NOT NULL,
    id              TEXT NOT NULL,
    image           TEXT NOT NULL,
    runtime         TEXT NOT NULL,
    options_type    TEXT,
    options         BLOB,
    spec_type       TEXT NOT NULL,
    spec            BLOB NOT NULL,
    snapshotter     TEXT NOT NULL,
    snapshot_key    TEXT NOT NULL,
    sandbox         TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE container_extensions (
    ns    TEXT NOT NULL,
    id    TEXT NOT NULL,
    key   TEXT NOT NULL,
    type  TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (ns, id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    ns           TEXT NOT NULL,
    name         TEXT NOT NULL,
    media_type   TEXT NOT NULL,
    digest       TEXT NOT NULL,
    size         INTEGER NOT NULL,
    annotations  TEXT NOT NULL,  -- of the target descriptor, a JSON object of strings
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (ns, name)
) STRICT, WITHOUT ROWID;

-- A blob that a namespace may see; its bytes are <content root>/blobs/<algorithm>/<hex>.
CREATE TABLE content (
    ns         TEXT NOT NULL,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (ns, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_by_digest ON content (digest);

-- An unfinished write; its bytes are <content root>/ingest/<sha256 of backend_ref>/data.
CREATE TABLE ingests (
    ns          TEXT NOT NULL,
    ref         TEXT NOT NULL,
    backend_ref TEXT NOT NULL UNIQUE,
    expected    TEXT NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (ns, ref)
) STRICT, WITHOUT ROWID;

-- kind: 1 view, 2 active, 3 committed, as on the wire. dir: <snapshotter root>/snapshots/<dir>.
CREATE TABLE snapshots (
    dir         INTEGER PRIMARY KEY AUTOINCREMENT,
    ns          TEXT NOT NULL,
    snapshotter TEXT NOT NULL,
    name        TEXT NOT NULL,
    parent      INTEGER REFERENCES snapshots (dir),
    kind        INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    usage_bytes INTEGER NOT NULL DEFAULT 0,
    usage_inodes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (ns, snapshotter, name)
) STRICT;
CREATE INDEX snapshots_by_parent ON snapshots (parent);

CREATE TABLE leases (
    ns         TEXT NOT NULL,
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;

-- type: content, ingests, images, snapshots/<snapshotter>
CREATE TABLE lease_resources (
    ns       TEXT NOT NULL,
    lease    TEXT NOT NULL,
    type     TEXT NOT NULL,
    resource TEXT NOT NULL,
    PRIMARY KEY (ns, lease, type, resource)
) STRICT, WITHOUT ROWID;
