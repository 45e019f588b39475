-- +goose Up

-- How often the turn was started. Unlike attempt it never goes back. What was left waiting or running by an
-- earlier version gets it from its log; for what has ended the counted attempts will do.
ALTER TABLE turns ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
UPDATE turns SET runs = attempt WHERE finished_at IS NOT NULL;
UPDATE turns SET runs = (SELECT count(*) FROM events e WHERE e.turn = turns.seq AND e.type = 'started')
    WHERE finished_at IS NULL;
