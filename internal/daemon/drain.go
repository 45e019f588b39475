package daemon

import (
	"context"
	"time"

	"gateway/fsm"
)

// drain prepares the successor while the lanes go on, then stops them and waits for the turns that run. So clients
// wait for what only this process can do, and a restart that is called off has held up nobody.
func (d *Daemon) drain(ctx context.Context, e fsm.Entry) fsm.Outcome {
	lanes := d.current.Load().lanes
	d.handover.next = d.prepare()
	lanes.Fold()
	if ended, how := d.awaitPrepared(ctx); ended {
		return how
	}
	if e.Report(ctx, fsm.Outcome{Event: fsm.Prepared, Reason: "the successor is prepared"}) != nil {
		return fsm.Outcome{} // the state was left
	}
	if lanes.Drain(ctx, e.Request.Turn) != nil {
		return fsm.Outcome{}
	}
	if d.handover.next.stale() && time.Until(e.Deadline()) > d.config().Lifecycle.PrepareTimeout() {
		d.handover.next.dismiss()
		d.handover.next = d.prepare() // the file or the executable may have changed while the turns ran
		if ended, how := d.awaitPrepared(ctx); ended {
			return how
		}
	}
	return fsm.Outcome{Event: fsm.Drained, Reason: "nothing runs"}
}

// awaitPrepared waits for the successor, and reports whether the drain ends here because there is none.
func (d *Daemon) awaitPrepared(ctx context.Context) (ended bool, how fsm.Outcome) {
	select {
	case <-d.handover.next.done:
	case <-ctx.Done():
		return true, fsm.Outcome{}
	}
	if err := d.handover.next.err; err != nil {
		return true, fsm.Outcome{Event: fsm.Resume, Reason: err.Error()}
	}
	return false, fsm.Outcome{}
}
