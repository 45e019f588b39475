package daemon

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"gateway/fsm"
	"gateway/internal/agent"
	"gateway/internal/config"
	"gateway/internal/failpoint"
	"gateway/internal/handoff"
	"gateway/internal/process"
	"gateway/internal/statedir"
	"gateway/queue"
	"gateway/server"
)

// start takes the lock and the port first, before any work, and posts started once all is there. A process that was
// handed both has begun to open the store already; see inherit.
func (d *daemon) start(ctx context.Context, e fsm.Entry) fsm.Outcome {
	for _, step := range []struct {
		name string
		do   func(context.Context, fsm.Entry) error
	}{
		{"lock", d.takeLock},
		{"hold off", d.holdOff},
		{"listen", d.listen},
		{"serve", d.serve},
		{"store", d.openQueue},
		{"publish", d.publish},
		{"take over", d.takeOver},
	} {
		if err := context.Cause(ctx); err != nil {
			return fsm.Outcome{}
		}
		failpoint.At("start." + step.name)
		if err := step.do(ctx, e); err != nil {
			if d.predecessor != nil && !d.owns {
				d.predecessor.Failed(err.Error())
			}
			return d.startFailed(err)
		}
	}
	d.inherited = nil
	return fsm.Outcome{Event: fsm.Started}
}

// startFailed tells what a person must mend from what may pass by itself.
func (d *daemon) startFailed(err error) fsm.Outcome {
	held, heldByOther := errors.AsType[*statedir.HeldError](err)
	_, noFolder := errors.AsType[*statedir.StateDirError](err)
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
	if d.restarted {
		code = fsm.ExitFailed // it ran a moment ago: trying again may help
	}
	d.failure = err
	if !strings.Contains(err.Error(), "Try:") {
		d.failure = fmt.Errorf("%w\nTry: %s", err, try)
	}
	return fsm.Outcome{Event: fsm.StartFailed, Reason: err.Error(), Exit: code}
}

func (d *daemon) takeLock(_ context.Context, e fsm.Entry) (err error) {
	dir := d.config().StateDir
	switch {
	case d.lockErr != nil:
		return d.lockErr
	case d.lock == nil:
		if d.lock, err = statedir.Acquire(dir); err != nil {
			return err
		}
	case d.inherited == nil: // restarted in place
		return nil
	}
	d.owns = d.predecessor == nil
	journal := statedir.OpenJournal(dir)
	hops := d.machine.Hops(0)
	for i, h := range hops {
		// What this image did before, and the end of the one that it replaced: a predecessor that lives writes its own.
		last := i+1 < len(hops) && hops[i+1].BootID == d.bootID
		if h.BootID == d.bootID || h.Event == fsm.Respawned && last && d.owns {
			journal.Add(h)
		}
	}
	d.journal.Store(journal)
	return nil
}

// listen opens the port and the control socket, or takes over those that are open already.
func (d *daemon) listen(ctx context.Context, _ fsm.Entry) (err error) {
	if h := d.inherited; h != nil {
		if d.socket, err = inheritedListener[*net.UnixListener](h.Socket, "control socket"); err != nil {
			return err
		}
		d.socket.SetUnlinkOnClose(false)
		tcp, err := inheritedListener[*net.TCPListener](h.Listener, "listener")
		if err != nil {
			return err
		}
		d.listener, d.listens = tcp, h.ListenAddress
		d.activated.Store(h.Activated)
	}
	if d.broken.Swap(false) { // the server failed on it, and closed it
		d.listener = nil
	}
	if d.listener == nil {
		activated, err := process.Activated()
		if err != nil {
			return err
		}
		if activated != nil {
			d.listener, d.listens = activated, d.config().Listen
			d.activated.Store(true)
		}
	}
	if d.activated.Load() && d.listener != nil && d.listens != d.config().Listen {
		d.log.Warn().Msg("listen has changed, but the supervisor holds the port; staying on " + d.listener.Addr().String() + ". Try: gateway service install --socket, then restart the socket unit")
	}
	if d.listener == nil || (d.listens != d.config().Listen && !d.activated.Load()) {
		fresh, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.config().Listen)
		switch {
		case err == nil:
			d.retired, d.listener, d.listens, d.served = d.listener, fresh, d.config().Listen, false
		case d.listener == nil:
			return err
		default: // better to be found where it was than nowhere
			d.log.Error().Err(err).Msg("the new listen address cannot be used; staying on " + d.listens + ". Try: mend listen, then gateway restart")
		}
	}
	if d.socket == nil {
		if d.socket, err = statedir.ListenSocket(ctx, d.config().StateDir); err != nil {
			return err
		}
	}
	address := d.listener.Addr().String()
	d.address.Store(&address)
	if d.inherited == nil {
		return d.claim()
	}
	d.unclaimed = true // they name the gateway before this one; writing them can wait, and clients do not
	return nil
}

// claim puts the name of this process to the state folder.
func (d *daemon) claim() error {
	d.unclaimed = false
	if err := d.lock.Claim(); err != nil {
		return err
	}
	return d.lock.Describe(statedir.Owner{PID: os.Getpid(), BootID: d.bootID, Address: d.listeningOn(), Since: time.Now()})
}

// takeOver waits until the predecessor says that this process may serve. Until then it has touched nothing
// but the store, whose lanes it keeps still, and the predecessor may kill it and go on.
func (d *daemon) takeOver(ctx context.Context, _ fsm.Entry) error {
	p := d.predecessor
	if p == nil || d.owns {
		return nil
	}
	patience := d.config().Lifecycle.StartTimeout / 2 // this process gives up before its state does
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it said nothing for %s", patience))
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		return err
	}
	d.forwarded.Go(func() { p.Forwarded(d.takeForwarded) })
	d.owns = true // nobody else serves now
	return nil
}

// endForwarding takes no more of what the predecessor still has to answer.
func (d *daemon) endForwarding() {
	if d.predecessor != nil && d.owns {
		d.predecessor.Close()
		d.forwarded.Wait()
		d.predecessor = nil
	}
}

// takeForwarded serves connections whose answers have just ended in the predecessor.
func (d *daemon) takeForwarded(conns []handoff.HeldConn) {
	for _, held := range conns {
		if nc, err := inheritedConn(held.FD); err == nil {
			d.server.Adopt(server.Parked{Conn: nc, Local: held.Local, TLS: held.TLS, Parted: held.Parted, Read: held.Read})
		}
	}
}

// listeningOn is the address that clients can reach, empty before it is known.
func (d *daemon) listeningOn() string {
	if a := d.address.Load(); a != nil {
		return *a
	}
	return ""
}

func inheritedListener[L net.Listener](fd int, name string) (l L, err error) {
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	any, err := net.FileListener(f)
	if err != nil {
		return l, fmt.Errorf("the inherited %s cannot be used: %w", name, err)
	}
	l, ok := any.(L)
	if !ok {
		return l, fmt.Errorf("the inherited %s is a %T", name, any)
	}
	return l, nil
}

func (d *daemon) openQueue(ctx context.Context, _ fsm.Entry) error {
	if d.opening == nil {
		d.opening = d.beginOpening(ctx)
	}
	before, err := d.opened(ctx)
	if err != nil {
		return err
	}
	if d.queue.Load().Crashed() {
		log := d.subsystem("agent")
		switch killed, err := agent.EndLeftovers(d.config().StateDir); {
		case err != nil:
			log.Warn().Err(err).Msg("some programs of the last gateway may still run")
		case killed > 0:
			log.Warn().Int("processes", killed).Msg("ended what programs of the last gateway had left running")
		}
	}
	if before != nil { // restarted in place: the store is open again
		if err := before.Close(ctx); err != nil {
			d.log.Warn().Err(err).Msg("the generation before did not close cleanly")
		}
	}
	return nil
}

// serve makes the server known to the listeners and adopts the connections that the image before this one
// held. All wait until open.
func (d *daemon) serve(_ context.Context, e fsm.Entry) error {
	if d.server == nil {
		d.server = server.New(server.Options{Lifecycle: lifecycle{d}, Version: d.Version, Metrics: d.metrics.handler(), Log: d.subsystem("server")})
		d.metrics.server.Store(d.server)
		if err := d.serveOn(e, d.socket, true); err != nil {
			return err
		}
	}
	if !d.served {
		if err := d.serveOn(e, d.listener, false); err != nil {
			return err
		}
		d.served = true
	}
	if d.inherited != nil {
		for _, held := range d.inherited.Conns {
			nc, err := inheritedConn(held.FD)
			if err != nil {
				d.log.Warn().Err(err).Msg("a held connection is lost")
				continue
			}
			d.carried = append(d.carried, server.Parked{Conn: nc, Local: held.Local, TLS: held.TLS, Parted: held.Parted, Read: held.Read})
		}
		d.inherited.Conns = nil
	}
	return nil
}

// publish makes this generation the one that requests are served from.
func (d *daemon) publish(context.Context, fsm.Entry) error {
	loaded := d.loaded.Load()
	c := &loaded.Config
	modes := make(map[string]queue.Mode)
	tools := make(map[string]bool)
	for name, a := range c.Agents {
		modes[name], tools[name] = queue.Mode(a.Mode), a.Type == "openai"
	}
	d.server.Publish(&server.Backend{
		Queue: d.queue.Load(), Agents: slices.Sorted(maps.Keys(c.Agents)), DefaultAgent: c.DefaultAgent,
		Modes: modes, Tools: tools,
		Lanes: slices.Sorted(maps.Keys(c.Lanes)), DefaultLane: "main", MaxInput: int64(c.Turns.MaxInput), Callers: callers(loaded), Certificate: loaded.Certificate,
		Limits: d.limits(), Config: func() (any, error) { return loaded.Document() },
		Check: d.check, Identity: func() (ed25519.PublicKey, error) { return statedir.Identity(c.StateDir) },
	})
	return nil
}

// callers are those who have a token. Whoever has auth.token may do everything.
func callers(l *config.Loaded) (all []server.Caller) {
	for _, name := range slices.Sorted(maps.Keys(l.Tokens)) {
		scope := server.Admin
		if name != "" {
			scope = server.ScopeOf(l.Config.Auth.Clients[name].Scopes...)
		}
		all = append(all, server.NewCaller(name, l.Tokens[name], scope))
	}
	return all
}

func (d *daemon) serveOn(e fsm.Entry, ln net.Listener, local bool) error {
	serve, err := d.server.Listen(ln, local)
	if err != nil {
		return err
	}
	go func() {
		if err := serve(); err != nil {
			d.log.Error().Err(err).Msg("the server failed. Try: gateway run, and report it when it fails again")
			d.broken.Store(d.broken.Load() || !local)
			e.Raise(fsm.Outcome{Event: fsm.ServerFailed, Reason: err.Error(), Exit: fsm.ExitServer})
		}
	}()
	return nil
}

func inheritedConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "held connection")
	defer func() { _ = f.Close() }()
	return net.FileConn(f)
}
