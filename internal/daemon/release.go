package daemon

import (
	"context"
	"errors"
	"net"
	"time"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/statedir"
	"gateway/server/carry"
)

// release closes whatever an earlier state has not closed, and releases the lock last.
func (d *Daemon) release(ctx context.Context, e fsm.Entry) fsm.Outcome {
	d.tenure.end()
	if s := d.handover.handedTo(); s != nil {
		d.leaveTo(ctx, s)
		return fsm.Outcome{}
	}
	if e.Hop.Event == fsm.StartFailed {
		d.startEnded(e.Hop)
		if d.why() == nil {
			d.fail(advice.Errorf("the start failed: %s", e.Hop.Reason).Try("raise lifecycle.start_timeout, and see the log"))
		}
	}
	d.handover.next.dismiss()
	if err := errors.Join(d.closeLanes(ctx, true), d.closeIngress(ctx)); err != nil {
		d.log.Warn().Err(err).Msg("not everything closed cleanly")
	}
	switch l, o := d.folder.lock, d.folder.opening; {
	case l == nil:
	case o != nil: // nobody else may open the store before it is closed
		o.tooLate(l)
	default:
		if err := l.Release(); err != nil {
			d.log.Warn().Err(err).Msg("the instance lock was not released cleanly")
		}
	}
	return fsm.Outcome{}
}

// leaveTo ends a process that has handed over: what it still answers ends here, and each connection follows
// as its answer is done.
func (d *Daemon) leaveTo(ctx context.Context, s successor) {
	d.ingress.front.Relay(func(ctx context.Context) (net.Conn, error) { return statedir.DialSocket(ctx, d.config().StateDir) })
	d.dropCarried()
	for {
		carried := d.ingress.front.CarryNext(ctx)
		if len(carried) == 0 {
			break
		}
		d.forward(s, carried)
	}
	if d.handover.lingers = d.ingress.front.Sealed() > 0; !d.handover.lingers {
		if err := d.ingress.front.Close(ctx); err != nil {
			d.log.Warn().Err(err).Msg("not everything closed cleanly")
		}
	}
	if err := d.current.Load().lanes.Close(ctx); err != nil { // the successor has the store open
		d.log.Warn().Err(err).Msg("the store was not closed cleanly")
	}
	_ = d.ingress.socket.Close() // copies; the successor has its own
	_ = d.ingress.listener.Close()
	_ = d.folder.lock.Leave()
	s.Leave()
}

// linger stays for the connections that could not be handed over, whose requests the successor answers.
func (d *Daemon) linger() {
	if !d.handover.lingers {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
	defer cancel()
	began := time.Now()
	err := d.ingress.front.Leave(ctx)
	d.log.Info().Err(err).Dur("lasted_ms", time.Since(began)).Msg("the last TLS connections have ended; the successor has all others")
}

func (d *Daemon) forward(s successor, carried []carry.Connection) {
	if err := s.Forward(carried); err != nil {
		d.log.Warn().Err(err).Int("connections", len(carried)).Msg("the successor takes no more connections")
		d.ingress.front.Refuse(carried)
		return
	}
	drop(carried)
}
