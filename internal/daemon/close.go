package daemon

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sync/errgroup"

	"gateway/fsm"
	"gateway/internal/failpoint"
	"gateway/internal/handoff"
	"gateway/internal/statedir"
	"gateway/server"
)

// close ends what this generation serves. On a restart the listeners stay open and requests wait at the
// gate; on a stop the server is closed as well.
func (d *daemon) close(ctx context.Context, e fsm.Entry) fsm.Outcome {
	stop := d.machine.Snapshot().Intent == fsm.IntentStop
	if e.Hop.From == fsm.Starting {
		d.startEnded(e.Hop)
	}
	if d.server != nil {
		expected := restartExpected
		notice := server.Notice{Reason: "gateway restarting", RestartExpectedMS: &expected}
		if stop {
			notice = server.Notice{Reason: "gateway stopping"}
		}
		d.server.Retire(notice)
	}
	d.endForwarding()
	if p := d.successor; !stop && p.stale() && d.mode.Load().Mode != handoff.ModeSpawn { // the drain's deadline passed
		p.dismiss()
		d.successor = d.prepare()
	}
	failpoint.At("close.told")
	// Both at once: answers end as their turns do, and each has its own few seconds.
	var steps errgroup.Group
	steps.Go(func() error { return d.closeQueue(ctx, stop) })
	if stop {
		steps.Go(func() error { return d.closeServer(ctx) })
	}
	if err := steps.Wait(); err != nil {
		return fsm.Outcome{Event: fsm.Closed, Reason: "not everything closed cleanly: " + err.Error()}
	}
	failpoint.At("close.done")
	return fsm.Outcome{Event: fsm.Closed, Reason: "closed"}
}

// closeQueue interrupts what runs, flushes the store and waits for every child process. It is idempotent. Unless
// for good, the store is left to the next generation.
func (d *daemon) closeQueue(ctx context.Context, forGood bool) error {
	ctx, cancel := context.WithTimeout(ctx, closeStep)
	defer cancel()
	var errs []error
	if d.opening != nil { // the start ended before it was needed; one that was not opened leaves nothing to close
		if _, err := d.opened(ctx); d.opening != nil {
			errs = append(errs, err)
		}
	}
	if q := d.queue.Load(); q != nil {
		end := q.HandOver
		if forGood {
			end = q.Close
		}
		errs = append(errs, end(ctx))
	}
	if d.agents != nil {
		errs = append(errs, d.agents.Close(ctx))
	}
	return errors.Join(errs...)
}

// closeServer answers what is held and closes every connection and listener. It is idempotent.
func (d *daemon) closeServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeStep)
	defer cancel()
	var errs []error
	if d.owns {
		if d.server != nil {
			d.server.Refuse(d.carried)
		}
		if d.socket != nil {
			statedir.RemoveSocket(d.config().StateDir)
		}
	}
	d.dropCarried()
	if d.server != nil {
		errs = append(errs, d.server.Close(ctx))
	}
	for _, ln := range []net.Listener{d.listener, d.retired} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	if d.socket != nil {
		_ = d.socket.Close()
	}
	return errors.Join(errs...)
}

// dropCarried closes this process's copies of connections that are somebody else's now.
func (d *daemon) dropCarried() {
	for _, p := range d.carried {
		_ = p.Conn.Close()
	}
	d.carried = nil
}
