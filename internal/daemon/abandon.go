package daemon

import (
	"context"
	"errors"

	"gateway/fsm"
)

func (d *Daemon) abandon(context.Context, fsm.Entry) fsm.Outcome {
	d.tenure.end()
	d.fail(errors.New("shutdown timed out; exiting without full cleanup\nTry: raise lifecycle.shutdown_timeout, or see in the log what did not end"))
	d.log.Error().Msg("shutdown timed out; exiting without full cleanup. What was accepted is on disk")
	return fsm.Outcome{}
}
