package daemon

import (
	"context"
	"fmt"
	"net"
	"os"

	"gateway/fsm"
	"gateway/internal/handoff"
	"gateway/internal/process"
	"gateway/internal/statedir"
	"gateway/server"
)

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
