package daemon

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"syscall"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/agent"
	"gateway/internal/config"
	"gateway/internal/failpoint"
	"gateway/internal/statedir"
	"gateway/queue"
	"gateway/server/api"
)

// start takes the lock and the port first, before any work, and posts started once all is there. A process that was
// handed both has begun to open the store already; see takeOverEarly.
func (d *Daemon) start(ctx context.Context, e fsm.Entry) fsm.Outcome {
	for _, step := range []struct {
		name string
		do   func(context.Context, fsm.Entry) error
	}{
		{"lock", d.takeLock},
		{"hold off", d.holdOff},
		{"listen", d.listen},
		{"serve", d.serve},
		{"store", d.openStore},
		{"publish", d.publish},
		{"take over", d.takeOver},
	} {
		if err := context.Cause(ctx); err != nil {
			return fsm.Outcome{}
		}
		failpoint.At("start." + step.name)
		if err := step.do(ctx, e); err != nil {
			if d.handover.current() == candidate {
				d.handover.predecessor.Failed(err.Error())
			}
			return d.startFailed(err, d.handover.restarted(e.Hop.Generation))
		}
	}
	if d.tenure.keep(func() { d.handover.inherited = nil }, nil) != nil {
		return fsm.Outcome{}
	}
	return fsm.Outcome{Event: fsm.Started}
}

// startFailed tells what a person must mend from what may pass by itself.
func (d *Daemon) startFailed(err error, restarted bool) fsm.Outcome {
	held, heldByOther := errors.AsType[*statedir.HeldError](err)
	_, noFolder := errors.AsType[*statedir.UnusableError](err)
	code, try := fsm.ExitFailed, "read the reason above; the state folder is "+d.config().StateDir
	switch {
	case heldByOther:
		code, try = fsm.ExitConfig, "gateway status --state-dir "+held.Dir+", or another folder with --state-dir"
	case noFolder:
		code, try = fsm.ExitConfig, "a state folder that can be written to, with --state-dir or GATEWAY_STATE_DIR"
	case errors.Is(err, syscall.EADDRINUSE):
		code, try = fsm.ExitConfig, "another address with --listen or GATEWAY_LISTEN, or find who has it with: ss -ltnp"
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, os.ErrPermission):
		code, try = fsm.ExitConfig, "an address of this machine, and a port above 1023, with --listen or GATEWAY_LISTEN"
	}
	if restarted {
		code = fsm.ExitFailed // it ran a moment ago: trying again may help
	}
	failure := advice.Default(err, try)
	_ = d.tenure.keep(func() { d.failure = failure }, nil)
	return fsm.Outcome{Event: fsm.StartFailed, Reason: err.Error(), Exit: code}
}

// takeOver waits until the predecessor says that this process may serve. Until then it has touched nothing
// but the store, whose lanes it keeps still, and the predecessor may kill it and go on.
func (d *Daemon) takeOver(ctx context.Context, _ fsm.Entry) error {
	if d.handover.current() != candidate {
		return nil
	}
	p := d.handover.predecessor
	ctx, cancel := awaitsServe.within(ctx)
	defer cancel()
	last, err := p.Ready(ctx)
	if err != nil {
		return err
	}
	var hop fsm.Hop
	if last != nil && json.Unmarshal(last, &hop) == nil { // none when it is dead
		d.machine.Recall(hop)
	}
	return cmp.Or(d.tenure.keep(func() {
		if err = d.handover.move(serveReceived); err == nil {
			d.handover.forwarded.Go(func() { p.Forwarded(d.adoptForwarded) })
		}
	}, nil), err)
}

// endForwarding takes no more of what the predecessor still has to answer.
func (d *Daemon) endForwarding() {
	if d.handover.predecessor != nil && d.handover.current() == owner {
		d.handover.predecessor.Close()
		d.handover.forwarded.Wait()
		d.handover.predecessor = nil
	}
}

func (d *Daemon) openStore(ctx context.Context, _ fsm.Entry) error {
	if d.folder.opening == nil {
		if err := d.tenure.keep(func() { d.folder.opening = d.beginOpening(ctx) }, nil); err != nil {
			return err
		}
	}
	before, err := d.opened(ctx)
	if err != nil {
		return err
	}
	if d.current.Load().lanes.Crashed() {
		log := d.subsystem("agent")
		switch killed, err := agent.EndLeftovers(d.config().StateDir); {
		case err != nil:
			log.Warn().Err(err).Msg("some programs of the last gateway may still run")
		case killed > 0:
			log.Warn().Int("processes", killed).Msg("ended programs that the last gateway left running")
		}
	}
	if before != nil { // restarted in place: the store is open again
		if err := before.Close(ctx); err != nil {
			d.log.Warn().Err(err).Msg("the previous generation did not close cleanly")
		}
	}
	return nil
}

// publish makes this generation the one that requests are served from.
func (d *Daemon) publish(context.Context, fsm.Entry) error {
	g := d.current.Load()
	loaded, c := &g.loaded, &g.loaded.Config
	q, _ := g.lanes.(*queue.Queue) // other lanes have no API
	modes := make(map[string]queue.Mode)
	tools := make(map[string]bool)
	for name, a := range c.Agents {
		modes[name], tools[name] = queue.Mode(a.Mode), a.Type == "openai"
	}
	d.ingress.front.Publish(&api.Backend{
		Queue: q, Agents: slices.Sorted(maps.Keys(c.Agents)), DefaultAgent: c.DefaultAgent,
		Modes: modes, Tools: tools,
		Lanes: slices.Sorted(maps.Keys(c.Lanes)), DefaultLane: "main", MaxInput: int64(c.Turns.MaxInput), Callers: callers(loaded), Certificate: loaded.Certificate,
		Limits: d.limits(), Config: func() (any, error) { return loaded.Document() },
		Check: d.check, Identity: func() (ed25519.PublicKey, error) { return statedir.Identity(c.StateDir) },
	})
	return nil
}

// callers are those who have a token. Whoever has auth.token may do everything.
func callers(l *config.Loaded) (all []api.Caller) {
	for _, name := range slices.Sorted(maps.Keys(l.Tokens)) {
		scope := api.Admin
		if name != "" {
			scope = api.ScopeOf(l.Config.Auth.Clients[name].Scopes...)
		}
		all = append(all, api.NewCaller(name, l.Tokens[name], scope))
	}
	return all
}
