package daemon

import (
	"context"

	"gateway/fsm"
)

// reset begins a new generation in this process.
func (d *Daemon) reset(ctx context.Context, e fsm.Entry) fsm.Outcome {
	p := d.handover.next
	p.dismiss()
	if d.tenure.keep(func() {
		d.handover.next = nil
		if p != nil && p.err == nil && d.current.Load().mode == fsm.ModeInPlace {
			d.use(p.next)
		}
	}, nil) != nil {
		return fsm.Outcome{}
	}
	if p != nil && p.err != nil {
		d.log.Warn().Err(p.err).Msg("the configuration is unchanged")
	}
	if e.Hop.Event == fsm.RespawnFailed {
		d.log.Warn().Str("reason", e.Hop.Reason).Msg("the successor could not take over; starting again in this process")
	}
	return d.start(ctx, e)
}
