package daemon

import (
	"context"

	"gateway/fsm"
)

func (d *daemon) resume(context.Context, fsm.Entry) fsm.Outcome {
	d.successor.dismiss()
	d.successor = nil
	d.queue.Load().Resume()
	return fsm.Outcome{}
}
