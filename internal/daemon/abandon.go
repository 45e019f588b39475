package daemon

import (
	"context"

	"gateway/fsm"
	"gateway/internal/advice"
)

func (d *Daemon) abandon(context.Context, fsm.Entry) fsm.Outcome {
	d.tenure.end()
	d.fail(advice.Errorf("shutdown timed out; exiting without full cleanup").Try("raise lifecycle.shutdown_timeout, or find in the log what did not end"))
	d.log.Error().Msg("shutdown timed out; exiting without full cleanup. What was accepted is on disk")
	return fsm.Outcome{}
}
