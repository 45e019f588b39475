package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
)

// inspect looks through the whole store for damage, beside everything else. It is done after a generation that
// did not close the store, because that is when a disk, or a machine, may have failed. What it finds is
// logged, and counted in [Stats]: what can still be read and written goes on.
func (q *Queue) inspect(ctx context.Context) {
	err := q.store.check(ctx)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, ErrDamaged):
		q.scheduler.ask(func() { q.scheduler.stats.Damaged = true })
		q.cfg.Log.Error().Err(err).
			Msg("the store is damaged. Try: stop the gateway and restore a backup, or recover what is left with sqlite3 .recover")
	case err != nil:
		q.cfg.Log.Error().Err(err).Msg("the store could not be looked through after a crash")
	default:
		q.cfg.Log.Info().Msg("the last gateway did not close the store; it was looked through and is whole")
	}
}

// Inspect looks through the store at path, which no queue has open, without changing it, and counts its turns.
// [ErrDamaged] when it finds any damage, [fs.ErrNotExist] when there is no store.
func Inspect(ctx context.Context, path string) (turns int64, err error) {
	if _, err := os.Stat(path); err != nil {
		return 0, fmt.Errorf("queue: inspect the store: %w", err)
	}
	db, err := connect(path, "ro")
	if err != nil {
		return 0, openError(path, err)
	}
	defer func() {
		if err = errors.Join(err, db.Close()); ctx.Err() != nil {
			err = ctx.Err() // what was interrupted says so in its own words
		}
	}()
	if err := quickCheck(ctx, db); err != nil {
		return 0, openError(path, err)
	}
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM turns`).Scan(&turns); err != nil {
		return 0, openError(path, cmp.Or(named(err), err))
	}
	return turns, nil
}
