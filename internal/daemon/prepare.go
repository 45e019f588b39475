package daemon

import (
	"context"
	"net"
	"time"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/server/api"
)

// preparation is the question to the executable on disk whether it could take over.
type preparation struct {
	asked  time.Time
	cancel context.CancelFunc
	done   chan struct{}
	// Valid once done is closed.
	next      config.Loaded // for a restart in place
	successor successor     // in mode spawn; nil before it has answered
	err       error
}

// prepare asks in the background. The answer outlives the drain that asked: it counts until the restart
// has ended one way or the other.
func (d *Daemon) prepare() *preparation {
	timeout := d.config().Lifecycle.PrepareTimeout()
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, d.noAnswer(timeout))
	p := &preparation{asked: time.Now(), cancel: cancel, done: make(chan struct{})}
	about := d.question()
	go func() {
		defer close(p.done)
		defer cancel()
		if p.err = d.system.room(about.StateDir); p.err != nil {
			return
		}
		if d.current.Load().mode != fsm.ModeInPlace {
			d.shed()
		}
		switch d.current.Load().mode {
		case fsm.ModeInPlace:
			p.next, p.err = d.system.candidate(ctx, d.Source, about)
		case fsm.ModeSpawn:
			about.Stay = true
			p.successor, p.err = d.system.spawn(ctx, d.executable, d.Argv, about)
		case fsm.ModeExec, fsm.ModeSupervisor, fsm.ModeAuto: // auto was replaced when the configuration was put in force
			_, _, p.err = d.system.ask(ctx, d.executable, d.Argv, about)
		}
	}()
	return p
}

// check asks whoever would be next, as a restart does first, and changes nothing. One asks at a time.
func (d *Daemon) check(ctx context.Context) (api.Successor, error) {
	select {
	case d.handover.checking <- struct{}{}:
		defer func() { <-d.handover.checking }()
	case <-ctx.Done():
		return api.Successor{}, ctx.Err()
	}
	timeout := d.config().Lifecycle.PrepareTimeout()
	asked, cancel := context.WithTimeoutCause(ctx, timeout, d.noAnswer(timeout))
	defer cancel()
	about, mode := d.question(), d.current.Load().mode
	about.Warn = true
	s := api.Successor{Mode: string(mode)}
	err := d.system.room(about.StateDir)
	switch {
	case err != nil:
	case mode == fsm.ModeInPlace:
		var next config.Loaded
		if next, err = d.system.candidate(asked, d.Source, about); err == nil {
			s.Version, s.Warnings = d.Version, warnings(next)
		}
	default:
		s.Version, s.Warnings, err = d.system.ask(asked, d.executable, d.Argv, about)
	}
	if ctx.Err() != nil {
		return api.Successor{}, ctx.Err()
	}
	if err != nil {
		s.Reason = err.Error()
	}
	s.Ready = err == nil
	return s, nil
}

// warnings are texts, each with what to try.
func warnings(l config.Loaded) (texts []string) {
	for _, w := range l.Warnings() {
		texts = append(texts, w.Error())
	}
	return texts
}

// noAnswer is why a question ends.
func (d *Daemon) noAnswer(timeout time.Duration) error {
	return advice.Errorf("no answer within %s", timeout).Tryf("run %s by itself, or raise lifecycle.drain_timeout", d.executable)
}

// shed makes room for the next generation, which comes to be beside this one.
func (d *Daemon) shed() {
	if err := d.system.shed(); err != nil {
		d.log.Debug().Err(err).Msg("the pages of the program were not released")
	}
}

func (d *Daemon) question() handoff.Question {
	return handoff.Question{StateDir: d.config().StateDir, ListenAddress: d.config().Listen, Activated: d.ingress.activated.Load()}
}

// stale reports whether the answer is older than it is trusted.
func (p *preparation) stale() bool {
	select {
	case <-p.done:
		return time.Since(p.asked) > preparedFor
	default:
		return false
	}
}

// dismiss ends a preparation that is not needed any more and waits for it.
func (p *preparation) dismiss() {
	if p != nil {
		p.cancel()
		<-p.done
		if p.successor != nil {
			p.successor.Dismiss()
		}
	}
}

// candidateFor decides whether this program, with the configuration on disk, could take over from p.
func candidateFor(ctx context.Context, source config.Source, p handoff.Question) (config.Loaded, error) {
	loaded, err := config.Load(source)
	if err != nil {
		return loaded, err
	}
	if loaded.Config.StateDir != p.StateDir {
		return loaded, advice.Errorf("state_dir changed from %s to %s", p.StateDir, loaded.Config.StateDir).Try("gateway stop, then gateway run")
	}
	if p.Activated || loaded.Config.Listen == p.ListenAddress {
		return loaded, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	probe, err := (&net.ListenConfig{}).Listen(ctx, "tcp", loaded.Config.Listen)
	if err != nil {
		return loaded, advice.Errorf("the new listen address cannot be used: %w", err).Try("another address; to widen the present one, gateway stop, then gateway run")
	}
	return loaded, probe.Close()
}
