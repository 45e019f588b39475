package queue

import (
	"context"
	"errors"
	"time"
)

// pruneAtOnce bounds how long a pruning keeps the committer from other operations.
const pruneAtOnce = 200

// pruneHourly forgets what is older than the retention, now and every hour until ctx ends.
func (q *Queue) pruneHourly(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		pruned, err := q.prune(ctx, now().Add(-q.cfg.Retention))
		switch {
		case err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed):
			q.cfg.Log.Warn().Err(err).Msg("old turns not pruned")
		case pruned > 0:
			q.cfg.Log.Info().Int("turns", pruned).Msg("pruned what is older than the retention")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// prune forgets the turns that finished before the given time.
func (q *Queue) prune(ctx context.Context, before time.Time) (pruned int, err error) {
	for next := int64(0); ; {
		var seqs []int64
		seqs, next, err = q.store.aged(ctx, before, next, pruneAtOnce)
		if err != nil {
			return pruned, err
		}
		if len(seqs) > 0 {
			op := &pruneTurns{progress: progress{done: make(chan struct{})}, seqs: seqs, before: before}
			if err := q.do(ctx, op, func() { q.scheduler.write(op) }); err != nil {
				return pruned, err
			}
			pruned += op.pruned
		}
		if next == 0 {
			return pruned, nil
		}
	}
}
