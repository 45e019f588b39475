package queue

import (
	"context"
	"errors"
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
