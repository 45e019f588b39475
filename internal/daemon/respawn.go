package daemon

import (
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
	case fsm.ModeInPlace:
		return fsm.Outcome{Event: fsm.RespawnDeclined, Reason: "restart in place: " + g.why}
	case fsm.ModeSupervisor:
		return fsm.Outcome{Event: fsm.HandedBack, Reason: "the supervisor starts the next process"}
	case fsm.ModeSpawn:
		return d.handToSuccessor(ctx, e)
	case fsm.ModeExec, fsm.ModeAuto: // auto was replaced when the configuration was put in force
	}
	return d.handToNextImage(ctx, e)
}

// handToNextImage replaces the image of this process.
func (d *Daemon) handToNextImage(ctx context.Context, e fsm.Entry) fsm.Outcome {
	if d.carry(ctx, answersCarry) != nil {
		return fsm.Outcome{}
	}
	failpoint.At("respawn.carried")
	d.folder.journal.Load().Add(map[string]any{"intent": "exec", "boot_id": d.bootID, "time": time.Now(), "path": d.executable})
	err := e.Commit(ctx, d.outside.signals.Quiesce, d.replaceImage, fsm.Outcome{Event: fsm.Respawned, Reason: "handed over"})
	if errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// handToSuccessor hands everything to a process of its own and lets it serve. Until it is told to, it can be
// killed and this process goes on.
func (d *Daemon) handToSuccessor(ctx context.Context, e fsm.Entry) fsm.Outcome {
	s := d.handover.next.successor
	if d.carry(ctx, answersFollow) != nil {
		return fsm.Outcome{}
	}
	d.folder.journal.Load().Add(map[string]any{"intent": "spawn", "boot_id": d.bootID, "time": time.Now(), "path": d.executable, "pid": s.pid()})
	everything, err := d.everything(nil)
	if err == nil {
		d.shed()
		err = s.Go(ctx, everything)
		d.shed() // again: some were needed to wait
	}
	if err == nil {
		then := fsm.Outcome{Event: fsm.Respawned, Reason: fmt.Sprintf("the successor serves, pid %d", s.pid())}
		err = e.Commit(ctx, d.outside.signals.Quiesce, func(last fsm.Hop) error {
			hop, err := json.Marshal(last)
			if err != nil {
				return err
			}
			if err := s.Serve(hop); err != nil {
				return err
			}
			d.handover.successor.Store(&s)
			return d.handover.move(serveSent)
		}, then)
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, fsm.ErrSuperseded) {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.RespawnFailed, Reason: err.Error()}
}

// carry takes every connection that is not being answered, and those whose answers end within the share.
func (d *Daemon) carry(ctx context.Context, answers share) error {
	ctx, cancel := answers.within(ctx)
	defer cancel()
	carried := d.ingress.front.Carry(ctx)
	return d.tenure.keep(func() { d.ingress.carried = append(d.ingress.carried, carried...) }, func() { d.ingress.front.Refuse(carried) })
}

// replaceImage returns only when it failed. The next image gets the hop that has led to it.
func (d *Daemon) replaceImage(last fsm.Hop) error {
	d.folder.journal.Load().Close()
	defer func() { d.folder.journal.Store(statedir.OpenJournal(d.config().StateDir)) }()
	everything, err := d.everything(&last)
	if err != nil {
		return err
	}
	failpoint.At("respawn.exec")
	return d.system.replace(d.executable, d.Argv, everything)
}

// everything is what goes over; last is the hop with which this process ends, nil when it has yet to be made. This process
// still has all of it when the hand-over fails.
func (d *Daemon) everything(last *fsm.Hop) (handoff.Handover, error) {
	hops := d.machine.Hops(0)
	next := hops[len(hops)-1].Seq + 2 // the hop between them is the last one of this process
	if last != nil {
		hops = append(hops, *last)
	}
	history, err := json.Marshal(hops[max(0, len(hops)-hopsHandedOver):])
	if err != nil {
		return handoff.Handover{}, err
	}
	return handoff.Handover{
		About: handoff.About{
			BootID: d.bootID, StateDir: d.config().StateDir, History: history, NextHop: next,
			ListenAddress: d.ingress.listens, Activated: d.ingress.activated.Load(),
		},
		Lock: d.folder.lock, Listener: d.ingress.listener.(syscall.Conn), Socket: d.ingress.socket.(syscall.Conn),
		Conns: d.ingress.carried,
	}, nil
}

// historyOf reads what the gateway before this one did, and the number of the first hop of this one.
func historyOf(h *handoff.Inherited) (hops []fsm.Hop, next uint64, err error) {
	if h == nil {
		return nil, 0, nil
	}
	if err := json.Unmarshal(h.History, &hops); err != nil {
		return nil, h.NextHop, fmt.Errorf("gateway: history: %w", err)
	}
	if len(hops) == 0 {
		return nil, h.NextHop, errors.New("gateway: history: empty")
	}
	if h.NextHop == 0 { // handed over by a version that does not pass its last hop on
		return hops, hops[len(hops)-1].Seq + 2, nil
	}
	return hops, h.NextHop, nil
}
