-- +goose Up

-- What the turn does when others of its session wait or run: followup, collect or interrupt.
ALTER TABLE turns ADD COLUMN mode TEXT NOT NULL DEFAULT 'followup';

-- Before this time the turn does not start again: the back-off between attempts. 0 when it may at once.
ALTER TABLE turns ADD COLUMN not_before INTEGER NOT NULL DEFAULT 0;

-- Whether the last generation closed the store.
ALTER TABLE meta ADD COLUMN closed INTEGER NOT NULL DEFAULT 1;

-- What a person has set for a lane or a session, until it is set back.
CREATE TABLE settings (
    kind   TEXT    NOT NULL CHECK (kind IN ('lane', 'session')),
    name   TEXT    NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0,
    mode   TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
