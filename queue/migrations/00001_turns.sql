-- +goose Up

-- Exactly one row. The epoch is the number of the generation that owns the store.
CREATE TABLE meta (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO meta (one, epoch) VALUES (1, 0);

-- Times are microseconds since 1970, UTC. What may be large comes last, so that reading a turn's
-- status does not walk its text.
CREATE TABLE turns (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    session      TEXT    NOT NULL,
    lane         TEXT    NOT NULL,
    agent        TEXT    NOT NULL,
    status       TEXT    NOT NULL,
    attempt      INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    key          TEXT    NOT NULL,
    on_interrupt TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    last_event   INTEGER NOT NULL,
    error        TEXT    NOT NULL,
    context      BLOB,
    input        TEXT    NOT NULL,
    output       TEXT    NOT NULL
) STRICT;

CREATE INDEX turns_session ON turns (session, seq);

-- Answers "what waits" at open without touching the turns themselves.
CREATE INDEX turns_open ON turns (seq, id, session, lane, created_at) WHERE finished_at IS NULL;

-- Answers "what did the last generation leave running".
CREATE INDEX turns_running ON turns (seq) WHERE status = 'running';

CREATE TABLE events (
    turn    INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    type    TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    text    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (turn, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    session    TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    turn       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (session, key)
) STRICT, WITHOUT ROWID;
