package daemon

import (
	"context"
	"time"

	"gateway/fsm"
)

// drain prepares the successor while the lanes go on, then stops them and waits for the turns that run. So clients
// wait for what only this process can do, and a restart that is called off has held up nobody.
func (d *Daemon) drain(ctx context.Context, e fsm.Entry) fsm.Outcome {
	d.handover.next = d.prepare()
	d.current.Load().lanes.Fold()
	prepared := d.handover.next.done
	var drained chan error // nil while the lanes go on, and once nothing runs
	stop := func() {
		drained = make(chan error, 1)
		go func() { drained <- d.current.Load().lanes.Drain(ctx, e.Request.Turn) }()
	}
	limit := time.NewTimer(never)
	defer limit.Stop()
	if e.Request.Drain != nil {
		limit.Reset(*e.Request.Drain)
	}
	select {
	case <-d.handover.hurry: // meant for an earlier drain
	default:
	}
	var end fsm.Outcome // how the wait for turns ended, once it has
	for prepared != nil || end.Event == "" {
		select {
		case <-prepared:
			if err := d.handover.next.err; err != nil {
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
			if d.handover.next.stale() && time.Until(d.machine.Snapshot().Deadline) > d.config().Lifecycle.PrepareTimeout() {
				d.handover.next.dismiss()
				d.handover.next = d.prepare() // the file or the executable may have changed while the turns ran
				prepared = d.handover.next.done
			}
		case shorter := <-d.handover.hurry:
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
func (d *Daemon) hurryUp(limit time.Duration) {
	select {
	case <-d.handover.hurry: // the newest counts
	default:
	}
	select {
	case d.handover.hurry <- limit:
	default:
	}
}
