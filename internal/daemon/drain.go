package daemon

import (
	"context"
	"time"

	"gateway/fsm"
)

// drain prepares the successor while the lanes go on, then stops them and waits for the turns that run. So clients
// wait for what only this process can do, and a restart that is called off has held up nobody.
func (d *daemon) drain(ctx context.Context, e fsm.Entry) fsm.Outcome {
	d.successor = d.prepare()
	d.queue.Load().Fold()
	prepared := d.successor.done
	var drained chan error // nil while the lanes go on, and once nothing runs
	stop := func() {
		drained = make(chan error, 1)
		go func() { drained <- d.queue.Load().Drain(ctx, e.Request.Turn) }()
	}
	limit := time.NewTimer(never)
	defer limit.Stop()
	if e.Request.Drain != nil {
		limit.Reset(*e.Request.Drain)
	}
	select {
	case <-d.hurry: // meant for an earlier drain
	default:
	}
	var end fsm.Outcome // how the wait for turns ended, once it has
	for prepared != nil || end.Event == "" {
		select {
		case <-prepared:
			if err := d.successor.err; err != nil {
				return fsm.Outcome{Event: fsm.Resume, Reason: err.Error()}
			}
			prepared = nil
			if end.Event == "" {
				stop()
			}
		case err := <-drained:
			if err != nil {
				return fsm.Outcome{} // the state was left
			}
			drained = nil
			end = fsm.Outcome{Event: fsm.Drained, Reason: "nothing runs"}
			if d.successor.stale() && time.Until(d.machine.Snapshot().Deadline) > d.config().Lifecycle.PrepareTimeout() {
				d.successor.dismiss()
				d.successor = d.prepare() // the file or the executable may have changed while the turns ran
				prepared = d.successor.done
			}
		case shorter := <-d.hurry:
			limit.Reset(shorter)
		case <-limit.C:
			drained = nil
			end = fsm.Outcome{Event: fsm.DrainTimedOut, Reason: "the restart asked to wait no longer"}
		case <-ctx.Done():
			return fsm.Outcome{}
		}
	}
	return end
}

// hurryUp shortens the drain that is under way, if one is.
func (d *daemon) hurryUp(limit time.Duration) {
	select {
	case <-d.hurry: // the newest counts
	default:
	}
	select {
	case d.hurry <- limit:
	default:
	}
}
