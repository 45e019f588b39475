package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"gateway/fsm"
	"gateway/internal/failpoint"
	"gateway/internal/handoff"
	"gateway/internal/statedir"
	"gateway/server"
)

const (
	// closeStep is how long one step of a close may take before the next begins.
	closeStep = 3 * time.Second
	// cancelGrace is how long an interrupted turn has to end.
	cancelGrace = 2500 * time.Millisecond
	// preparedFor is how long the answer of a successor is trusted.
	preparedFor = time.Second
	// backlogTime is how long a retired address is emptied.
	backlogTime = 10 * time.Millisecond
	// never is longer than any drain.
	never = 1000 * time.Hour
	// parkTime is how long answers that are under way may still take before the image is replaced.
	parkTime = time.Second
	// spawnParkTime is the same before a hand-over to a successor, after which they may still end.
	spawnParkTime = 50 * time.Millisecond
	// lingerTime is how long requests that came by TLS may still wait for their answers once this process has
	// handed over; it is as long as any waits at the gate.
	lingerTime = 15 * time.Minute
	// hopsHandedOver is how much of the history the next gateway is told, while clients wait: the last ten restarts or so.
	// All of it is in lifecycle.jsonl.
	hopsHandedOver = 64
	// restartExpected is what clients are told, as OpenClaw's gateway tells its own.
	restartExpected int64 = 1500
)

// open makes Running what its name says.
func (d *daemon) open(_ context.Context, e fsm.Entry) fsm.Outcome {
	d.queue.Load().Resume()
	d.takeBacklog()
	d.server.Resume(d.carried)
	d.carried = nil
	// No client waits any more: now comes what is for people.
	d.startEnded(e.Hop)
	if d.unclaimed {
		if err := d.claim(); err != nil {
			d.log.Warn().Err(err).Msg("the files that name this process are not up to date")
		}
	}
	if d.retired != nil {
		_ = d.retired.Close()
		d.retired = nil
	}
	scheme := "http"
	if d.config().TLS.On() {
		scheme = "https"
	}
	_, _ = fmt.Fprintf(d.Out, "gateway listens on %s://%s\nits state is kept in %s\n", scheme, d.listeningOn(), d.config().StateDir)
	return fsm.Outcome{}
}

// takeBacklog takes the connections that still wait at an address which is given up.
func (d *daemon) takeBacklog() {
	ln, ok := d.retired.(*net.TCPListener)
	if !ok || ln.SetDeadline(time.Now().Add(backlogTime)) != nil {
		return
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		d.carried = append(d.carried, server.Parked{Conn: nc, TLS: d.config().TLS.On()})
	}
}

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

func (d *daemon) resume(context.Context, fsm.Entry) fsm.Outcome {
	d.successor.dismiss()
	d.successor = nil
	d.queue.Load().Resume()
	return fsm.Outcome{}
}

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

// reset begins a new generation in this process.
func (d *daemon) reset(ctx context.Context, e fsm.Entry) fsm.Outcome {
	p := d.successor
	p.dismiss()
	d.successor, d.restarted = nil, true
	if p != nil && p.err == nil && d.mode.Load().Mode == handoff.ModeInPlace {
		d.use(p.next)
	}
	if p != nil && p.err != nil {
		d.log.Warn().Err(p.err).Msg("the configuration stays as it was")
	}
	if e.Hop.Event == fsm.RespawnFailed {
		d.log.Warn().Str("reason", e.Hop.Reason).Msg("the successor could not take over; starting again in this process")
	}
	return d.start(ctx, e)
}

// release closes whatever an earlier state has not closed, and lets go of the lock last.
func (d *daemon) release(ctx context.Context, e fsm.Entry) fsm.Outcome {
	if heir := d.heir.Load(); heir != nil {
		d.leaveTo(ctx, heir)
		return fsm.Outcome{}
	}
	if e.Hop.Event == fsm.StartFailed {
		d.startEnded(e.Hop)
	}
	if e.Hop.Event == fsm.StartFailed && d.failure == nil {
		d.failure = fmt.Errorf("the start failed: %s\nTry: raise lifecycle.start_timeout, and see the log", e.Hop.Reason)
	}
	d.successor.dismiss()
	if err := errors.Join(d.closeQueue(ctx, true), d.closeServer(ctx)); err != nil {
		d.log.Warn().Err(err).Msg("not everything closed cleanly")
	}
	if d.lock != nil {
		if err := d.lock.Release(); err != nil {
			d.log.Warn().Err(err).Msg("the instance lock was not released cleanly")
		}
	}
	return fsm.Outcome{}
}

func (d *daemon) abandon(context.Context, fsm.Entry) fsm.Outcome {
	d.failure = errors.New("shutdown timed out; exiting without full cleanup\nTry: raise lifecycle.shutdown_timeout, or see in the log what did not end")
	d.log.Error().Msg("shutdown timed out; exiting without full cleanup. What was accepted is on disk")
	return fsm.Outcome{}
}
