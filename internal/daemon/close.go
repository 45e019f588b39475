package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"gateway/fsm"
	"gateway/internal/failpoint"
	"gateway/internal/statedir"
	"gateway/server/api"
)

// close ends what this generation serves. On a restart the listeners stay open and requests wait at the
// gate; on a stop the server is closed as well.
func (d *Daemon) close(ctx context.Context, e fsm.Entry) fsm.Outcome {
	stop := d.machine.Snapshot().Intent == fsm.IntentStop
	if e.Hop.From == fsm.Starting {
		d.startEnded(e.Hop)
	}
	if f := d.ingress.front; f != nil {
		expected := restartExpected
		notice := api.Notice{Reason: "gateway restarting", RestartExpectedMS: &expected}
		if stop {
			notice = api.Notice{Reason: "gateway stopping"}
		}
		f.Retire(notice)
	}
	d.endForwarding()
	if p := d.handover.next; !stop && p.stale() && d.current.Load().mode != fsm.ModeSpawn { // the drain's deadline passed
		p.dismiss()
		d.handover.next = d.prepare()
	}
	failpoint.At("close.told")
	// Both at once: answers end as their turns do.
	var steps errgroup.Group
	steps.Go(func() error { return d.closeLanes(ctx, stop) })
	if stop {
		steps.Go(func() error { return d.closeIngress(ctx) })
	}
	if err := steps.Wait(); err != nil {
		return fsm.Outcome{Event: fsm.Closed, Reason: "not everything closed cleanly: " + err.Error()}
	}
	failpoint.At("close.done")
	return fsm.Outcome{Event: fsm.Closed, Reason: "closed"}
}

// closeLanes interrupts what runs, flushes the store and waits for every child process. It is idempotent. Unless
// for good, the store is left to the next generation.
func (d *Daemon) closeLanes(ctx context.Context, forGood bool) error {
	ctx, cancel := closingEnd.within(ctx)
	defer cancel()
	var errs []error
	if o := d.folder.opening; o != nil { // the start ended before it needed the store
		select {
		case <-o.done:
			d.folder.opening = nil
			errs = append(errs, o.close(ctx))
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("the store is still being opened: %w", context.Cause(ctx)))
		}
	}
	g := d.current.Load()
	if g.lanes != nil {
		end := g.lanes.HandOver
		if forGood {
			end = g.lanes.Close
		}
		errs = append(errs, end(ctx))
	}
	if g.agents != nil {
		errs = append(errs, g.agents.Close(ctx))
	}
	return errors.Join(errs...)
}

// closeIngress answers what is held and closes every connection and listener. It is idempotent.
func (d *Daemon) closeIngress(ctx context.Context) error {
	ctx, cancel := answersEnd.within(ctx)
	defer cancel()
	in := &d.ingress
	var errs []error
	if d.handover.current() == owner {
		if in.front != nil {
			in.front.Refuse(in.carried)
		}
		if in.socket != nil {
			statedir.RemoveSocket(d.config().StateDir)
		}
	}
	d.dropCarried()
	if in.front != nil {
		errs = append(errs, in.front.Close(ctx))
	}
	for _, ln := range []net.Listener{in.listener, in.retired, in.socket} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	return errors.Join(errs...)
}

// dropCarried closes this process's copies of connections that are somebody else's now.
func (d *Daemon) dropCarried() {
	drop(d.ingress.carried)
	d.ingress.carried = nil
}
