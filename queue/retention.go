package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	"gateway/internal/failpoint"
)

// pruneAtOnce bounds how long a pruning keeps the committer from other operations.
const pruneAtOnce = 200

// believed is how many looks, an hour apart, a clock that was set ahead must stay so for.
const believed = 24

// calendar is the wall clock as far as retention trusts it: a clock that is set back is believed at once, one that is
// set ahead after a day without being set back, and the one that a start finds after ten minutes. Until then a clock
// that is wrong costs no turn. What is kept for longer than it should be costs only room.
type calendar struct {
	begun []time.Time // when the running time began, by each of the latest looks
}

// look returns the latest time that it surely is, given the wall clock and the running time, which no setting of the
// clock changes.
func (c *calendar) look(wall time.Time, ran time.Duration) time.Time {
	c.begun = append(c.begun, wall.Add(-ran))
	if len(c.begun) > believed {
		c.begun = c.begun[1:]
	}
	return slices.MinFunc(c.begun, time.Time.Compare).Add(ran)
}

// pruneHourly forgets what is older than the retention, from ten minutes on until ctx ends.
func (q *Queue) pruneHourly(ctx context.Context) {
	var c calendar
	begun := time.Now()
	c.look(now(), 0)
	next := time.NewTimer(failpoint.Hour() / 6)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		before := c.look(now(), time.Since(begun)).Add(-q.cfg.Retention)
		pruned, err := q.prune(ctx, before)
		switch {
		case err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed):
			q.cfg.Log.Warn().Err(err).Msg("old turns not pruned")
		case pruned > 0:
			q.cfg.Log.Info().Int("turns", pruned).Msg("pruned turns older than the retention")
		case err == nil:
			q.cfg.Log.Debug().Time("before", before).Msg("no turn is older than the retention")
		}
		next.Reset(failpoint.Hour())
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
