package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/process"
)

// preparation is the question to the executable on disk whether it could take over.
type preparation struct {
	asked  time.Time
	cancel context.CancelFunc
	done   chan struct{}
	next   config.Loaded // for a restart in place
	err    error         // valid once done is closed
}

// prepare asks in the background. The answer outlives the drain that asked: it counts until the restart
// has ended one way or the other.
func (d *daemon) prepare() *preparation {
	timeout := d.config().Lifecycle.RespawnTimeout
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("no answer within %s", timeout))
	p := &preparation{asked: time.Now(), cancel: cancel, done: make(chan struct{})}
	about := process.Predecessor{StateDir: d.config().StateDir, ListenAddress: d.config().Listen}
	go func() {
		defer close(p.done)
		defer cancel()
		if d.mode.Load().Mode == process.ModeInPlace {
			p.next, p.err = candidate(d.source, about)
			return
		}
		_, p.err = process.Prepare(ctx, d.executable, d.argv, about)
	}()
	return p
}

// dismiss ends a preparation that is not needed any more and waits for it.
func (p *preparation) dismiss() {
	if p != nil {
		p.cancel()
		<-p.done
	}
}

// candidate decides whether this program, with the configuration on disk, could take over from p.
func candidate(source config.Source, p process.Predecessor) (config.Loaded, error) {
	loaded, err := config.Load(source)
	if err != nil {
		return loaded, err
	}
	if loaded.Config.StateDir != p.StateDir {
		return loaded, fmt.Errorf("state_dir changed from %s to %s\nTry: gateway stop, then gateway run", p.StateDir, loaded.Config.StateDir)
	}
	if loaded.Config.Listen == p.ListenAddress {
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

// historyOf reads what the image before this one did, and adds that it has handed over.
func historyOf(h *process.Handover) ([]fsm.Hop, error) {
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
		Reason: "the process image was replaced", LastedMS: float64(now.Sub(last.Time).Microseconds()) / 1000,
	}), nil
}
