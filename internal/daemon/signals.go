package daemon

import (
	"os"

	"golang.org/x/sys/unix"

	"gateway/fsm"
)

// lifecycleSignals are the signals of the table.
func lifecycleSignals() []os.Signal {
	var sigs []os.Signal
	for _, s := range fsm.Signals() {
		sigs = append(sigs, unix.SignalNum(s.Name))
	}
	return sigs
}

// signalled turns a signal into the event that the table names for it.
func (d *Daemon) signalled(sig os.Signal) {
	number, ok := sig.(unix.Signal)
	if !ok {
		return
	}
	name := unix.SignalName(number)
	if s := d.handover.handedTo(); s != nil { // whoever sends it means the gateway
		_ = unix.Kill(s.pid(), number)
		return
	}
	switch number { //nolint:exhaustive // the signals of the table
	case unix.SIGTERM, unix.SIGINT:
		d.machine.Notify(fsm.Request{Event: fsm.Stop, Actor: name})
	case unix.SIGHUP:
		if _, err := d.system.candidate(d.Source, d.question()); err != nil {
			d.outside.metrics.signals.WithLabelValues(name).Inc()
			d.log.Warn().Err(err).Msg("received SIGHUP; refused, the gateway goes on as it was")
			return
		}
		d.machine.Notify(fsm.Request{Event: fsm.Restart, Actor: name, Reason: "the configuration on disk is valid"})
	case unix.SIGUSR1:
		if d.config().Lifecycle.AllowSignalRestart {
			d.machine.Notify(fsm.Request{Event: fsm.Restart, Actor: name, Reason: "lifecycle.allow_signal_restart"})
			return
		}
		if actor, ok := d.outside.permit.Use(); ok {
			d.machine.Notify(fsm.Request{Event: fsm.Restart, Actor: name, Reason: "authorised by " + actor})
			return
		}
		d.outside.metrics.signals.WithLabelValues(name).Inc()
		d.log.Warn().Msg("received SIGUSR1; refused: no restart was authorised. Try: gateway restart, or gateway restart --authorize-signal before the signal, or lifecycle.allow_signal_restart: true")
	}
}
