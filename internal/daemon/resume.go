package daemon

import (
	"context"

	"gateway/fsm"
)

func (d *Daemon) resume(context.Context, fsm.Entry) fsm.Outcome {
	d.handover.next.dismiss()
	d.handover.next = nil
	d.current.Load().lanes.Resume()
	return fsm.Outcome{}
}
