package daemon

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"gateway/fsm"
	"gateway/internal/advice"
)

// lifecycleSignals are the signals of the table.
func lifecycleSignals() []os.Signal {
	var sigs []os.Signal
	for _, s := range fsm.Signals() {
		sigs = append(sigs, unix.SignalNum(s.Name))
	}
	return sigs
}

// signalled turns a signal into the event of its row, when its condition holds.
func (d *Daemon) signalled(sig os.Signal) {
	number, ok := sig.(unix.Signal)
	if !ok {
		return
	}
	if s := d.handover.handedTo(); s != nil { // whoever sends it means the gateway
		_ = unix.Kill(s.pid(), number)
		return
	}
	name := unix.SignalName(number)
	for _, row := range fsm.Signals() {
		if row.Name != name {
			continue
		}
		reason, err := d.conditions()[row.Condition]()
		if err != nil {
			d.outside.metrics.signals.WithLabelValues(name).Inc()
			d.log.Warn().Err(err).Msg("received " + name + "; refused, and the gateway continues unchanged")
			return
		}
		d.machine.Notify(fsm.Request{Event: row.Event, Actor: name, Reason: reason})
	}
}

// conditions has a function for each condition of a signal. It returns why the condition holds, for the history, or why
// it does not.
func (d *Daemon) conditions() map[fsm.Condition]func() (reason string, err error) {
	return map[fsm.Condition]func() (string, error){
		fsm.Always: func() (string, error) { return "", nil },
		fsm.ValidConfiguration: func() (string, error) {
			_, err := d.system.candidate(context.Background(), d.Source, d.question())
			return "the configuration on disk is valid", err
		},
		fsm.Authorised: func() (string, error) {
			if d.config().Lifecycle.AllowSignalRestart {
				return "lifecycle.allow_signal_restart", nil
			}
			if actor, ok := d.outside.permit.Use(); ok {
				return "authorised by " + actor, nil
			}
			return "", advice.Errorf("no restart was authorised").Try("gateway restart, or gateway restart --authorize-signal before the signal, or lifecycle.allow_signal_restart: true")
		},
	}
}
