-- +goose Up

-- What the runner said about its answer besides the text, as JSON; NULL when it said nothing.
ALTER TABLE turns ADD COLUMN detail BLOB;
