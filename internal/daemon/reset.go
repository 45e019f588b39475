package daemon

import (
	"context"

	"gateway/fsm"
	"gateway/internal/handoff"
)

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
