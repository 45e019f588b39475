package main

import (
	"context"
	"fmt"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"

	"gateway/fsm"
	"gateway/internal/process"
)

// extendSlack is what a supervisor is asked for beyond the state's own deadline.
const extendSlack = 10 * time.Second

// tellSupervisor says what the hop means outside. STOPPING=1 is final for systemd, so a restart, which may
// still be called off, is a reload; and a long drain asks for its time.
func (d *daemon) tellSupervisor(h fsm.Hop) {
	status := "STATUS=" + string(h.To)
	if h.Reason != "" {
		status += ": " + firstLine(h.Reason)
	}
	switch heir := d.heir.Load(); {
	case h.Event == fsm.Respawned && heir != nil: // said by the main process, in one message: systemd listens to no other
		d.supervisor.Tell(sdnotify.SdNotifyReady, fmt.Sprintf("MAINPID=%d", heir.PID), "STATUS="+string(fsm.Running))
	case h.To == fsm.Running:
		d.supervisor.Tell(sdnotify.SdNotifyReady, status)
	case h.To == fsm.Draining:
		wait := d.config().Lifecycle.DrainTimeout + d.config().Lifecycle.ShutdownTimeout + d.config().Lifecycle.RespawnTimeout + extendSlack
		d.supervisor.Tell(append(process.Reloading(), fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", wait.Microseconds()), status)...)
	case h.To == fsm.ShuttingDown && (h.Event == fsm.Stop || h.Event == fsm.ServerFailed):
		d.supervisor.Tell(sdnotify.SdNotifyStopping, status)
	default:
		d.supervisor.Tell(status)
	}
}

// feedWatchdog gives a sign of life as long as the owner of the machine answers.
func (d *daemon) feedWatchdog(ctx context.Context) {
	every := d.supervisor.Watchdog / 2
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			asked, cancel := context.WithTimeout(ctx, every)
			if d.machine.Ping(asked) == nil {
				d.supervisor.Tell(sdnotify.SdNotifyWatchdog)
			}
			cancel()
		case <-ctx.Done():
			return
		}
	}
}
