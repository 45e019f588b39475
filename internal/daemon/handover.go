package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/failpoint"
	"gateway/internal/handoff"
	"gateway/internal/process"
	"gateway/internal/statedir"
	"gateway/server"
)

// preparation is the question to the executable on disk whether it could take over.
type preparation struct {
	asked  time.Time
	cancel context.CancelFunc
	done   chan struct{}
	// Valid once done is closed.
	next      config.Loaded      // for a restart in place
	successor *handoff.Successor // in mode spawn
	err       error
}

// prepare asks in the background. The answer outlives the drain that asked: it counts until the restart
// has ended one way or the other.
func (d *daemon) prepare() *preparation {
	timeout := d.config().Lifecycle.PrepareTimeout()
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, d.noAnswer(timeout))
	p := &preparation{asked: time.Now(), cancel: cancel, done: make(chan struct{})}
	about := d.question()
	go func() {
		defer close(p.done)
		defer cancel()
		if p.err = statedir.Room(about.StateDir); p.err != nil {
			return
		}
		if d.mode.Load().Mode != handoff.ModeInPlace {
			d.shed()
		}
		switch d.mode.Load().Mode {
		case handoff.ModeInPlace:
			p.next, p.err = candidate(d.Source, about)
		case handoff.ModeSpawn:
			about.Stay = true
			p.successor, p.err = handoff.Spawn(ctx, d.executable, d.Argv, about)
		case handoff.ModeExec, handoff.ModeSupervisor:
			_, _, p.err = handoff.Prepare(ctx, d.executable, d.Argv, about)
		}
	}()
	return p
}

// check asks whoever would be next, as a restart does first, and changes nothing. One asks at a time.
func (d *daemon) check(ctx context.Context) (server.Successor, error) {
	select {
	case d.checking <- struct{}{}:
		defer func() { <-d.checking }()
	case <-ctx.Done():
		return server.Successor{}, ctx.Err()
	}
	timeout := d.config().Lifecycle.PrepareTimeout()
	asked, cancel := context.WithTimeoutCause(ctx, timeout, d.noAnswer(timeout))
	defer cancel()
	about, mode := d.question(), d.mode.Load().Mode
	about.Warn = true
	s := server.Successor{Mode: string(mode)}
	err := statedir.Room(about.StateDir)
	switch {
	case err != nil:
	case mode == handoff.ModeInPlace:
		var next config.Loaded
		if next, err = candidate(d.Source, about); err == nil {
			s.Version, s.Warnings = d.Version, warnings(next)
		}
	default:
		s.Version, s.Warnings, err = handoff.Prepare(asked, d.executable, d.Argv, about)
	}
	if ctx.Err() != nil {
		return server.Successor{}, ctx.Err()
	}
	if err != nil {
		s.Reason = err.Error()
	}
	s.Ready = err == nil
	return s, nil
}

// warnings are texts, each with what to try.
func warnings(l config.Loaded) (texts []string) {
	for _, w := range l.Warnings() {
		texts = append(texts, w.Error())
	}
	return texts
}

// noAnswer is why a question ends.
func (d *daemon) noAnswer(timeout time.Duration) error {
	return fmt.Errorf("no answer within %s\nTry: see what %s does on its own, or raise lifecycle.drain_timeout", timeout, d.executable)
}

// shed makes room for the next generation, which comes to be beside this one.
func (d *daemon) shed() {
	if err := process.Shed(); err != nil {
		d.log.Debug().Err(err).Msg("the pages of the program are kept")
	}
}

func (d *daemon) question() handoff.Question {
	return handoff.Question{StateDir: d.config().StateDir, ListenAddress: d.config().Listen, Activated: d.activated.Load()}
}

// stale reports whether the answer is older than it is trusted.
func (p *preparation) stale() bool {
	select {
	case <-p.done:
		return time.Since(p.asked) > preparedFor
	default:
		return false
	}
}

// dismiss ends a preparation that is not needed any more and waits for it.
func (p *preparation) dismiss() {
	if p != nil {
		p.cancel()
		<-p.done
		if p.successor != nil {
			p.successor.Dismiss()
		}
	}
}

// candidate decides whether this program, with the configuration on disk, could take over from p.
func candidate(source config.Source, p handoff.Question) (config.Loaded, error) {
	loaded, err := config.Load(source)
	if err != nil {
		return loaded, err
	}
	if loaded.Config.StateDir != p.StateDir {
		return loaded, fmt.Errorf("state_dir changed from %s to %s\nTry: gateway stop, then gateway run", p.StateDir, loaded.Config.StateDir)
	}
	if p.Activated || loaded.Config.Listen == p.ListenAddress {
		return loaded, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	probe, err := (&net.ListenConfig{}).Listen(ctx, "tcp", loaded.Config.Listen)
	if err != nil {
		return loaded, fmt.Errorf("the new listen address cannot be used: %w\nTry: another address; to widen the present one, gateway stop, then gateway run", err)
	}
	return loaded, probe.Close()
}

// respawn hands over to the successor or the next image of this process, or declines.
func (d *daemon) respawn(ctx context.Context, e fsm.Entry) fsm.Outcome {
	select {
	case <-d.successor.done:
	case <-ctx.Done():
		return fsm.Outcome{}
	}
	if err := d.successor.err; err != nil {
		return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
	}
	switch mode := d.mode.Load(); mode.Mode {
	case handoff.ModeInPlace:
		return fsm.Outcome{Event: fsm.RespawnDeclined, Reason: "restart in place: " + mode.why}
	case handoff.ModeSupervisor:
		return fsm.Outcome{Event: fsm.Respawned, Reason: "the supervisor starts the next process", Exit: fsm.ExitSupervisor}
	case handoff.ModeSpawn:
		return d.handToSuccessor(ctx, e)
	case handoff.ModeExec:
	}
	return d.handToNextImage(ctx, e)
}

// handToNextImage replaces the image of this process.
func (d *daemon) handToNextImage(ctx context.Context, e fsm.Entry) fsm.Outcome {
	parkCtx, cancel := context.WithTimeout(ctx, parkTime)
	d.carried = append(d.carried, d.server.Park(parkCtx)...)
	cancel()
	failpoint.At("respawn.parked")
	d.journal.Load().Add(map[string]any{"intent": "exec", "boot_id": d.bootID, "time": time.Now(), "path": d.executable})
	err := e.Commit(ctx, d.signals.Quiesce, d.replaceImage, fsm.Outcome{})
	if errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// handToSuccessor hands everything to a process of its own and lets it serve. Until it is told to, it can be
// killed and this process goes on.
func (d *daemon) handToSuccessor(ctx context.Context, e fsm.Entry) fsm.Outcome {
	s := d.successor.successor
	parkCtx, cancel := context.WithTimeout(ctx, spawnParkTime)
	d.carried = append(d.carried, d.server.Park(parkCtx)...)
	cancel()
	d.journal.Load().Add(map[string]any{"intent": "spawn", "boot_id": d.bootID, "time": time.Now(), "path": d.executable, "pid": s.PID})
	doc, kept, err := d.handover(handoff.Duplicate)
	defer func() { handoff.Drop(kept...) }()
	if err == nil {
		d.shed()
		err = s.Go(ctx, doc)
		d.shed() // again: some were needed to wait
	}
	if err == nil {
		then := fsm.Outcome{Event: fsm.Respawned, Reason: fmt.Sprintf("the successor serves, pid %d", s.PID)}
		err = e.Commit(ctx, d.signals.Quiesce, func() error {
			if err := s.Serve(); err != nil {
				return err
			}
			d.heir.Store(s)
			return nil
		}, then)
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// leaveTo ends a process that has handed over: what it still answers ends here, and each connection follows
// as its answer is done.
func (d *daemon) leaveTo(ctx context.Context, heir *handoff.Successor) {
	ctx, cancel := context.WithTimeout(ctx, closeStep)
	defer cancel()
	d.server.Relay(func(ctx context.Context) (net.Conn, error) { return statedir.DialSocket(ctx, d.config().StateDir) })
	d.dropCarried()
	for {
		parked := d.server.ParkNext(ctx)
		if len(parked) == 0 {
			break
		}
		d.forward(heir, parked)
	}
	if d.lingers = d.server.Sealed() > 0; !d.lingers {
		if err := d.server.Close(ctx); err != nil {
			d.log.Warn().Err(err).Msg("not everything closed cleanly")
		}
	}
	if err := d.queue.Load().Close(ctx); err != nil { // the successor has the store open
		d.log.Warn().Err(err).Msg("the store was not closed cleanly")
	}
	_ = d.socket.Close() // copies; the successor has its own
	_ = d.listener.Close()
	_ = d.lock.Leave()
	heir.Leave()
}

// linger stays for the connections that could not be handed over, whose requests the successor answers.
func (d *daemon) linger() {
	if !d.lingers {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
	defer cancel()
	began := time.Now()
	err := d.server.Leave(ctx)
	d.log.Info().Err(err).Dur("lasted_ms", time.Since(began)).Msg("the last TLS connections have ended; the successor has all others")
}

func (d *daemon) forward(heir *handoff.Successor, parked []server.Parked) {
	var conns []handoff.HeldConn
	var kept []int
	defer func() { handoff.Drop(kept...) }()
	for _, p := range parked {
		if c, ok := p.Conn.(syscall.Conn); ok {
			if fd, err := handoff.Duplicate(c); err == nil {
				kept = append(kept, fd)
				conns = append(conns, handoff.HeldConn{FD: fd, Local: p.Local, TLS: p.TLS, Parted: p.Parted, Read: p.Read})
			}
		}
	}
	if err := heir.Forward(conns); err != nil {
		d.log.Warn().Err(err).Int("connections", len(parked)).Msg("the successor takes no more connections")
		d.server.Refuse(parked)
		return
	}
	for _, p := range parked {
		_ = p.Conn.Close()
	}
}

// replaceImage returns only when it failed.
func (d *daemon) replaceImage() error {
	d.journal.Load().Close()
	syscall.ForkLock.RLock() // a child that is started now would inherit what is kept
	defer syscall.ForkLock.RUnlock()
	doc, kept, err := d.handover(handoff.Keep)
	defer func() {
		handoff.Drop(kept...)
		d.journal.Store(statedir.OpenJournal(d.config().StateDir))
	}()
	if err != nil {
		return err
	}
	failpoint.At("respawn.exec")
	return handoff.Exec(d.executable, d.Argv, doc)
}

// handover lists what goes over, as descriptors that keep has made and the caller drops. On an error nobody
// is left behind: this process goes on with all of them.
func (d *daemon) handover(keep func(syscall.Conn) (int, error)) (doc handoff.Handover, kept []int, err error) {
	var failed error
	add := func(c syscall.Conn) int {
		fd, err := keep(c)
		if err != nil {
			failed = cmp.Or(failed, err) // one says it for all
			return -1
		}
		kept = append(kept, fd)
		return fd
	}
	hops := d.machine.Hops(0)
	history, err := json.Marshal(hops[max(0, len(hops)-hopsHandedOver):])
	if err != nil {
		return doc, nil, err
	}
	doc = handoff.Handover{
		BootID: d.bootID, StateDir: d.config().StateDir, ListenAddress: d.listens, Activated: d.activated.Load(), History: history,
		Lock: add(d.lock), Listener: add(d.listener.(syscall.Conn)), Socket: add(d.socket),
	}
	for _, p := range d.carried {
		if c, ok := p.Conn.(syscall.Conn); ok {
			doc.Conns = append(doc.Conns, handoff.HeldConn{FD: add(c), Local: p.Local, TLS: p.TLS, Parted: p.Parted, Read: p.Read})
		}
	}
	return doc, kept, failed
}

// historyOf reads what the image before this one did, and adds that it has handed over.
func historyOf(h *handoff.Handover) ([]fsm.Hop, error) {
	if h == nil {
		return nil, nil
	}
	var hops []fsm.Hop
	if err := json.Unmarshal(h.History, &hops); err != nil {
		return nil, fmt.Errorf("gateway: history: %w", err)
	}
	if len(hops) == 0 {
		return nil, errors.New("gateway: history: empty")
	}
	last := hops[len(hops)-1]
	now := time.Now()
	return append(hops, fsm.Hop{
		Seq: last.Seq + 1, BootID: h.BootID, Generation: last.Generation, Time: now,
		From: fsm.Respawning, Event: fsm.Respawned, To: fsm.Stopped, Actor: "gateway",
		Reason: "handed over", LastedMS: float64(max(0, now.Sub(last.Time)).Microseconds()) / 1000, // the clock may have been set back
	}), nil
}
