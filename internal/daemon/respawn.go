package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"gateway/fsm"
	"gateway/internal/failpoint"
	"gateway/internal/handoff"
	"gateway/internal/statedir"
)

// respawn hands over to the successor or the next image of this process, or declines.
func (d *Daemon) respawn(ctx context.Context, e fsm.Entry) fsm.Outcome {
	select {
	case <-d.handover.next.done:
	case <-ctx.Done():
		return fsm.Outcome{}
	}
	if err := d.handover.next.err; err != nil {
		return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
	}
	switch g := d.current.Load(); g.mode {
	case handoff.ModeInPlace:
		return fsm.Outcome{Event: fsm.RespawnDeclined, Reason: "restart in place: " + g.why}
	case handoff.ModeSupervisor:
		return fsm.Outcome{Event: fsm.Respawned, Reason: "the supervisor starts the next process", Exit: fsm.ExitSupervisor}
	case handoff.ModeSpawn:
		return d.handToSuccessor(ctx, e)
	case handoff.ModeExec:
	}
	return d.handToNextImage(ctx, e)
}

// handToNextImage replaces the image of this process.
func (d *Daemon) handToNextImage(ctx context.Context, e fsm.Entry) fsm.Outcome {
	if d.park(ctx, parkTime) != nil {
		return fsm.Outcome{}
	}
	failpoint.At("respawn.parked")
	d.folder.journal.Load().Add(map[string]any{"intent": "exec", "boot_id": d.bootID, "time": time.Now(), "path": d.executable})
	err := e.Commit(ctx, d.outside.signals.Quiesce, d.replaceImage, fsm.Outcome{})
	if errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// handToSuccessor hands everything to a process of its own and lets it serve. Until it is told to, it can be
// killed and this process goes on.
func (d *Daemon) handToSuccessor(ctx context.Context, e fsm.Entry) fsm.Outcome {
	s := d.handover.next.successor
	if d.park(ctx, spawnParkTime) != nil {
		return fsm.Outcome{}
	}
	d.folder.journal.Load().Add(map[string]any{"intent": "spawn", "boot_id": d.bootID, "time": time.Now(), "path": d.executable, "pid": s.pid()})
	doc, kept, err := d.document(d.system.duplicate)
	defer func() { handoff.Drop(kept...) }()
	if err == nil {
		d.shed()
		err = s.Go(ctx, doc)
		d.shed() // again: some were needed to wait
	}
	if err == nil {
		then := fsm.Outcome{Event: fsm.Respawned, Reason: fmt.Sprintf("the successor serves, pid %d", s.pid())}
		err = e.Commit(ctx, d.outside.signals.Quiesce, func() error {
			if err := s.Serve(); err != nil {
				return err
			}
			d.handover.successor.Store(&s)
			return d.handover.move(successorServes)
		}, then)
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// park takes every connection that is not being answered, and those whose answers end within the time.
func (d *Daemon) park(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	parked := d.ingress.front.Park(ctx)
	return d.tenure.keep(func() { d.ingress.carried = append(d.ingress.carried, parked...) }, func() { d.ingress.front.Refuse(parked) })
}

// replaceImage returns only when it failed.
func (d *Daemon) replaceImage() error {
	d.folder.journal.Load().Close()
	syscall.ForkLock.RLock() // a child that is started now would inherit what is kept
	defer syscall.ForkLock.RUnlock()
	doc, kept, err := d.document(d.system.keep)
	defer func() {
		handoff.Drop(kept...)
		d.folder.journal.Store(statedir.OpenJournal(d.config().StateDir))
	}()
	if err != nil {
		return err
	}
	failpoint.At("respawn.exec")
	return d.system.replace(d.executable, d.Argv, doc)
}

// document lists what goes over, as descriptors that keep has made and the caller drops. On an error nobody
// is left behind: this process goes on with all of them.
func (d *Daemon) document(keep func(syscall.Conn) (int, error)) (doc handoff.Handover, kept []int, err error) {
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
		BootID: d.bootID, StateDir: d.config().StateDir, ListenAddress: d.ingress.listens, Activated: d.ingress.activated.Load(), History: history,
		Lock: add(d.folder.lock), Listener: add(d.ingress.listener.(syscall.Conn)), Socket: add(d.ingress.socket.(syscall.Conn)),
	}
	for _, p := range d.ingress.carried {
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
