package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"gateway/fsm"
	"gateway/internal/agent"
	"gateway/internal/process"
	"gateway/queue"
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
	// parkTime is how long answers that are under way may still take before the image is replaced.
	parkTime = time.Second
	// restartExpected is what clients are told, as OpenClaw's gateway tells its own.
	restartExpected int64 = 1500
)

// start takes the lock and the port first, before any work, and posts started once all is there.
func (d *daemon) start(ctx context.Context, e fsm.Entry) fsm.Outcome {
	for _, step := range []func(context.Context, fsm.Entry) error{
		d.takeLock, d.listen, d.serve, d.openQueue, d.publish,
	} {
		if err := context.Cause(ctx); err != nil {
			return fsm.Outcome{}
		}
		if err := step(ctx, e); err != nil {
			return d.startFailed(err)
		}
	}
	d.inherited = nil
	return fsm.Outcome{Event: fsm.Started}
}

// startFailed tells what a person must mend from what may pass by itself.
func (d *daemon) startFailed(err error) fsm.Outcome {
	held, heldByOther := errors.AsType[*process.HeldError](err)
	_, noFolder := errors.AsType[*process.StateDirError](err)
	code, try := fsm.ExitFailed, "read the reason above; the state folder is "+d.config().StateDir
	switch {
	case heldByOther:
		code, try = fsm.ExitConfig, "gateway status --state-dir "+held.Dir+", or another folder with --state-dir"
	case noFolder:
		code, try = fsm.ExitConfig, "a state folder that can be written to, with --state-dir or GATEWAY_STATE_DIR"
	case errors.Is(err, syscall.EADDRINUSE):
		code, try = fsm.ExitConfig, "another address with --listen or GATEWAY_LISTEN, or find who has it with: ss -ltnp"
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, os.ErrPermission):
		code, try = fsm.ExitConfig, "an address of this machine, and a port above 1023, with --listen or GATEWAY_LISTEN"
	}
	if d.restarted {
		code = fsm.ExitFailed // it ran a moment ago: trying again may help
	}
	d.failure = err
	if !strings.Contains(err.Error(), "Try:") {
		d.failure = fmt.Errorf("%w\nTry: %s", err, try)
	}
	return fsm.Outcome{Event: fsm.StartFailed, Reason: err.Error(), Exit: code}
}

func (d *daemon) takeLock(_ context.Context, e fsm.Entry) (err error) {
	dir := d.config().StateDir
	switch {
	case d.lock != nil:
		return nil
	case d.inherited != nil:
		d.lock, err = process.Adopt(dir, d.inherited.LockFile())
	default:
		d.lock, err = process.Acquire(dir)
	}
	if err != nil {
		return err
	}
	journal := process.OpenJournal(dir)
	for _, h := range d.machine.Hops(0) { // what this image did before, and the end of the one it replaced
		if h.BootID == d.bootID || h.Event == fsm.Respawned {
			journal.Add(h)
		}
	}
	d.journal.Store(journal)
	return nil
}

// listen opens the port and the control socket, or takes over those that are open already.
func (d *daemon) listen(ctx context.Context, _ fsm.Entry) (err error) {
	if h := d.inherited; h != nil {
		if d.socket, err = inheritedListener[*net.UnixListener](h.Socket, "control socket"); err != nil {
			return err
		}
		d.socket.SetUnlinkOnClose(false)
		tcp, err := inheritedListener[*net.TCPListener](h.Listener, "listener")
		if err != nil {
			return err
		}
		d.listener, d.listens = tcp, h.ListenAddress
	}
	if d.broken.Swap(false) { // the server failed on it, and closed it
		d.listener = nil
	}
	if d.listener == nil {
		activated, err := process.Activated()
		if err != nil {
			return err
		}
		if activated != nil {
			d.listener, d.listens = activated, d.config().Listen
		}
	}
	if d.listener == nil || d.listens != d.config().Listen {
		fresh, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.config().Listen)
		switch {
		case err == nil:
			d.retired, d.listener, d.listens, d.served = d.listener, fresh, d.config().Listen, false
		case d.listener == nil:
			return err
		default: // better to be found where it was than nowhere
			d.log.Error().Err(err).Msg("the new listen address cannot be used; staying on " + d.listens + ". Try: mend listen, then gateway restart")
		}
	}
	if d.socket == nil {
		if d.socket, err = process.ListenSocket(ctx, d.config().StateDir); err != nil {
			return err
		}
	}
	address := d.listener.Addr().String()
	d.address.Store(&address)
	return d.lock.Describe(process.Owner{PID: os.Getpid(), BootID: d.bootID, Address: address, Since: time.Now()})
}

// listeningOn is the address that clients can reach, empty before it is known.
func (d *daemon) listeningOn() string {
	if a := d.address.Load(); a != nil {
		return *a
	}
	return ""
}

func inheritedListener[L net.Listener](fd int, name string) (l L, err error) {
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	any, err := net.FileListener(f)
	if err != nil {
		return l, fmt.Errorf("the inherited %s cannot be used: %w", name, err)
	}
	l, ok := any.(L)
	if !ok {
		return l, fmt.Errorf("the inherited %s is a %T", name, any)
	}
	return l, nil
}

func (d *daemon) openQueue(ctx context.Context, _ fsm.Entry) (err error) {
	c := d.config()
	if d.agents, err = agent.New(c.Agents, d.subsystem("agent")); err != nil {
		return err
	}
	lanes := make(map[string]int)
	for name, l := range c.Lanes {
		lanes[name] = l.Concurrency
	}
	q, err := queue.Open(ctx, filepath.Join(c.StateDir, "gateway.db"), queue.Config{
		Runner: d.agents, Lanes: lanes, MaxAttempts: c.Turns.MaxAttempts, OnInterrupt: queue.OnInterrupt(c.Turns.OnInterrupt),
		MaxQueued: c.Turns.MaxQueued, MaxQueuedPerSession: c.Turns.MaxQueuedPerSession, MaxOutput: int(c.Turns.MaxOutput),
		Retention: c.Turns.Retention, CancelGrace: cancelGrace, Log: d.subsystem("queue"),
	})
	if err != nil {
		return err
	}
	d.queue.Store(q)
	return nil
}

// serve makes the server known to the listeners and adopts the connections that the image before this one
// held. All wait until open.
func (d *daemon) serve(_ context.Context, e fsm.Entry) error {
	if d.server == nil {
		d.server = server.New(server.Options{Lifecycle: lifecycle{d}, Version: d.version, Metrics: d.metrics.handler(), Log: d.subsystem("server")})
		if err := d.serveOn(e, d.socket, true); err != nil {
			return err
		}
	}
	if !d.served {
		if err := d.serveOn(e, d.listener, false); err != nil {
			return err
		}
		d.served = true
	}
	if d.inherited != nil {
		for _, held := range d.inherited.Conns {
			nc, err := inheritedConn(held.FD)
			if err != nil {
				d.log.Warn().Err(err).Msg("a held connection is lost")
				continue
			}
			d.carried = append(d.carried, server.Parked{Conn: nc, Local: held.Local, Read: held.Read})
		}
		d.inherited.Conns = nil
	}
	return nil
}

// publish makes this generation the one that requests are served from.
func (d *daemon) publish(context.Context, fsm.Entry) error {
	c := d.config()
	d.server.Publish(&server.Backend{
		Queue: d.queue.Load(), Agents: slices.Sorted(maps.Keys(c.Agents)), DefaultAgent: c.DefaultAgent,
		Lanes: slices.Sorted(maps.Keys(c.Lanes)), DefaultLane: "main", MaxInput: int64(c.Turns.MaxInput), Token: c.Auth.Token,
	})
	return nil
}

func (d *daemon) serveOn(e fsm.Entry, ln net.Listener, local bool) error {
	serve, err := d.server.Listen(ln, local)
	if err != nil {
		return err
	}
	go func() {
		if err := serve(); err != nil {
			d.log.Error().Err(err).Msg("the server failed. Try: gateway run, and report it when it fails again")
			d.broken.Store(d.broken.Load() || !local)
			e.Raise(fsm.Outcome{Event: fsm.ServerFailed, Reason: err.Error(), Exit: fsm.ExitServer})
		}
	}()
	return nil
}

func inheritedConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "held connection")
	defer func() { _ = f.Close() }()
	return net.FileConn(f)
}

// open makes Running what its name says.
func (d *daemon) open(context.Context, fsm.Entry) fsm.Outcome {
	d.queue.Load().Resume()
	d.takeBacklog()
	d.server.Resume(d.carried)
	d.carried = nil
	if d.retired != nil {
		_ = d.retired.Close()
		d.retired = nil
	}
	_, _ = fmt.Fprintf(d.out, "gateway listens on http://%s\nits state is kept in %s\n", d.listeningOn(), d.config().StateDir)
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
		d.carried = append(d.carried, server.Parked{Conn: nc})
	}
}

// drain waits for the turns that run while the successor is prepared beside them.
func (d *daemon) drain(ctx context.Context, e fsm.Entry) fsm.Outcome {
	d.queue.Load().Pause()
	d.successor = d.prepare()
	drained := make(chan error, 1)
	go func() { drained <- d.queue.Load().Drain(ctx, e.Request.Turn) }()
	prepared := d.successor.done
	for drained != nil || prepared != nil {
		select {
		case <-prepared:
			if err := d.successor.err; err != nil {
				return fsm.Outcome{Event: fsm.Resume, Reason: err.Error()}
			}
			prepared = nil
		case err := <-drained:
			if err != nil {
				return fsm.Outcome{} // the state was left
			}
			drained = nil
			if prepared == nil && time.Since(d.successor.asked) > preparedFor {
				d.successor = d.prepare() // the file or the executable may have changed while the turns ran
				prepared = d.successor.done
			}
		case <-ctx.Done():
			return fsm.Outcome{}
		}
	}
	return fsm.Outcome{Event: fsm.Drained, Reason: "nothing runs"}
}

func (d *daemon) resume(context.Context, fsm.Entry) fsm.Outcome {
	d.successor.dismiss()
	d.successor = nil
	d.queue.Load().Resume()
	return fsm.Outcome{}
}

// close ends what this generation serves. On a restart the listeners stay open and requests wait at the
// gate; on a stop the server is closed as well.
func (d *daemon) close(ctx context.Context, _ fsm.Entry) fsm.Outcome {
	stop := d.machine.Snapshot().Intent == fsm.IntentStop
	if d.server != nil {
		expected := restartExpected
		notice := server.Notice{Reason: "gateway restarting", RestartExpectedMS: &expected}
		if stop {
			notice = server.Notice{Reason: "gateway stopping"}
		}
		d.server.Retire(notice)
	}
	// Both at once: answers end as their turns do, and each has its own few seconds.
	var steps errgroup.Group
	steps.Go(func() error { return d.closeQueue(ctx) })
	if stop {
		steps.Go(func() error { return d.closeServer(ctx) })
	}
	if err := steps.Wait(); err != nil {
		return fsm.Outcome{Event: fsm.Closed, Reason: "not everything closed cleanly: " + err.Error()}
	}
	return fsm.Outcome{Event: fsm.Closed, Reason: "closed"}
}

// closeQueue interrupts what runs, flushes the store and waits for every child process. It is idempotent.
func (d *daemon) closeQueue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeStep)
	defer cancel()
	var errs []error
	if q := d.queue.Load(); q != nil {
		errs = append(errs, q.Close(ctx))
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
	if d.server != nil {
		d.server.Refuse(d.carried)
		d.carried = nil
		errs = append(errs, d.server.Close(ctx))
	}
	if d.socket != nil {
		process.RemoveSocket(d.config().StateDir)
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

// respawn replaces the image of this process, or declines.
func (d *daemon) respawn(ctx context.Context, e fsm.Entry) fsm.Outcome {
	mode := d.mode.Load()
	if mode.Mode == process.ModeInPlace {
		return fsm.Outcome{Event: fsm.RespawnDeclined, Reason: "restart in place: " + mode.why}
	}
	select {
	case <-d.successor.done:
	case <-ctx.Done():
		return fsm.Outcome{}
	}
	if err := d.successor.err; err != nil {
		return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
	}
	if mode.Mode == process.ModeSupervisor {
		return fsm.Outcome{Event: fsm.Respawned, Reason: "the supervisor starts the next process", Exit: fsm.ExitSupervisor}
	}
	parkCtx, cancel := context.WithTimeout(ctx, parkTime)
	d.carried = append(d.carried, d.server.Park(parkCtx)...)
	cancel()
	d.journal.Load().Add(map[string]any{"intent": "exec", "boot_id": d.bootID, "time": time.Now(), "path": d.executable})
	err := e.Commit(ctx, d.signals.Quiesce, d.replaceImage)
	if errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// replaceImage returns only when it failed.
func (d *daemon) replaceImage() error {
	d.journal.Load().Close()
	var kept []int
	var failed error
	keep := func(c syscall.Conn) int {
		fd, err := process.Keep(c)
		if err != nil {
			failed = errors.Join(failed, err)
			return -1
		}
		kept = append(kept, fd)
		return fd
	}
	syscall.ForkLock.RLock() // a child that is started now would inherit what is kept
	defer syscall.ForkLock.RUnlock()
	defer func() {
		process.Drop(kept...)
		d.journal.Store(process.OpenJournal(d.config().StateDir))
	}()
	history, err := json.Marshal(d.machine.Hops(0))
	if err != nil {
		return err
	}
	doc := process.Handover{
		BootID: d.bootID, StateDir: d.config().StateDir, ListenAddress: d.listens, History: history,
		Lock: keep(d.lock), Listener: keep(d.listener.(syscall.Conn)), Socket: keep(d.socket),
	}
	for _, p := range d.carried {
		if c, ok := p.Conn.(syscall.Conn); ok {
			doc.Conns = append(doc.Conns, process.HeldConn{FD: keep(c), Local: p.Local, Read: p.Read})
		}
	}
	if failed != nil { // nobody is left behind: this process goes on with all of them
		return failed
	}
	return process.Exec(d.executable, d.argv, doc)
}

// reset begins a new generation in this process.
func (d *daemon) reset(ctx context.Context, e fsm.Entry) fsm.Outcome {
	p := d.successor
	p.dismiss()
	d.successor, d.restarted = nil, true
	if p != nil && p.err == nil && d.mode.Load().Mode == process.ModeInPlace {
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
	if e.Hop.Event == fsm.StartFailed && d.failure == nil {
		d.failure = fmt.Errorf("the start failed: %s\nTry: raise lifecycle.start_timeout, and see the log", e.Hop.Reason)
	}
	d.successor.dismiss()
	if err := errors.Join(d.closeQueue(ctx), d.closeServer(ctx)); err != nil {
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
