-- +goose Up

-- The number of the event with which the latest attempt started, while the turn's own row stands for it: its
-- time is started_at. So does the row for the event that ended the attempt (last_event, status, error,
-- finished_at) and for the text of a completed attempt that was written in one piece (output). What is left
-- for the log is text that came in pieces, and attempts that were not the last. 0: all is in the log.
ALTER TABLE turns ADD COLUMN head INTEGER NOT NULL DEFAULT 0;

-- What is open is read once, when the store is opened; until then each entry costs every turn.
DROP INDEX turns_running;
DROP INDEX turns_open;
CREATE INDEX turns_open ON turns (seq) WHERE finished_at IS NULL;
