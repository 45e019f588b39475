package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"gateway/fsm"
	"gateway/internal/handoff"
	"gateway/internal/statedir"
	"gateway/server"
)

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
