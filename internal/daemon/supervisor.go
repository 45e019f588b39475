package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"

	"gateway/fsm"
	"gateway/internal/process"
)

// attendEvery is how often the supervisor hears of a state that lasts.
const attendEvery = 5 * time.Second

// extendSlack is what a supervisor is asked for beyond the state's own deadline.
const extendSlack = 10 * time.Second

// tellSupervisor says what the hop means outside. STOPPING=1 is final for systemd, so a restart, which may
// still be called off, is a reload; and a long drain asks for its time.
func (d *Daemon) tellSupervisor(h fsm.Hop) {
	status := "STATUS=" + string(h.To)
	if h.Reason != "" {
		status += ": " + statusLine(h.Reason)
	}
	switch s := d.handover.handedTo(); {
	case h.Event == fsm.Respawned && s != nil: // said by the main process, in one message: systemd listens to no other
		d.outside.supervisor.Notify(sdnotify.SdNotifyReady, fmt.Sprintf("MAINPID=%d", s.pid()), "STATUS="+string(fsm.Running))
	case h.To == fsm.Running:
		d.outside.supervisor.Notify(sdnotify.SdNotifyReady, status)
	case h.To == fsm.Draining && h.From != fsm.Draining:
		wait := d.config().Lifecycle.DrainTimeout + d.config().Lifecycle.ShutdownTimeout + d.config().Lifecycle.RespawnTimeout + extendSlack
		d.outside.supervisor.Notify(append(process.Reloading(), fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", wait.Microseconds()), status)...)
	case h.To == fsm.ShuttingDown && (h.Event == fsm.Stop || h.Event == fsm.ServerFailed):
		d.outside.supervisor.Notify(sdnotify.SdNotifyStopping, status)
	default:
		d.outside.supervisor.Notify(status)
	}
}

// attendSupervisor gives a sign of life as long as the owner of the machine answers, and asks for more time as
// long as a state has some left: one request does not cover a drain that was asked to last.
func (d *Daemon) attendSupervisor(ctx context.Context) {
	if !d.outside.supervisor.Present() {
		return
	}
	every := attendEvery
	if w := d.outside.supervisor.Watchdog; w > 0 {
		every = min(every, w/2)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			asked, cancel := context.WithTimeout(ctx, every)
			if d.machine.Ping(asked) == nil {
				d.outside.supervisor.Notify(sdnotify.SdNotifyWatchdog)
			}
			cancel()
			if at := d.machine.Snapshot().Deadline; !at.IsZero() {
				d.outside.supervisor.Notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (time.Until(at) + extendSlack).Microseconds()))
			}
		case <-ctx.Done():
			return
		}
	}
}

// statusLine is enough of a reason to recognise it, on the one line that a supervisor shows.
func statusLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if r := []rune(s); len(r) > 50 {
		return string(r[:49]) + "…"
	}
	return s
}
