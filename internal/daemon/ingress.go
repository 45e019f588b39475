package daemon

import (
	"context"
	"net"
	"sync/atomic"

	"gateway/fsm"
	"gateway/internal/handoff"
	"gateway/server"
	"gateway/server/carry"
)

// ingress is where clients come in.
type ingress struct {
	front     front // nil until the first start has come so far
	listener  net.Listener
	listens   string             // the configured address that listener serves
	served    bool               // front knows listener
	retired   net.Listener       // the listener before a change of address
	socket    net.Listener       // the control socket
	carried   []carry.Connection // connections that the next open hands to front
	address   atomic.Pointer[string]
	activated atomic.Bool // the listener belongs to the supervisor, whatever the configuration says
	broken    atomic.Bool // front failed on the listener
	// newest is the start of this generation: what fails later is reported to it.
	newest atomic.Pointer[fsm.Entry]
}

// listen opens the port and the control socket, or takes over those that are open already.
func (d *Daemon) listen(ctx context.Context, e fsm.Entry) error {
	d.ingress.newest.Store(&e)
	if h := d.handover.inherited; h != nil {
		if err := d.inheritListeners(h); err != nil {
			return err
		}
	}
	if err := d.openListener(ctx); err != nil {
		return err
	}
	in := &d.ingress
	if in.socket == nil {
		socket, err := d.system.socket(ctx, d.config().StateDir)
		if err != nil {
			return err
		}
		if err := d.tenure.keep(func() { in.socket = socket }, func() { _ = socket.Close() }); err != nil {
			return err
		}
	}
	address := in.listener.Addr().String()
	in.address.Store(&address)
	if d.handover.inherited == nil {
		return d.claim()
	}
	return nil // the files name the gateway before this one; writing them can wait for open, and clients do not
}

// inheritListeners takes over what the gateway before this one had open.
func (d *Daemon) inheritListeners(h *handoff.Inherited) error {
	socket, err := h.Socket()
	if err != nil {
		return err
	}
	socket.SetUnlinkOnClose(false)
	if err := d.tenure.keep(func() { d.ingress.socket = socket }, func() { _ = socket.Close() }); err != nil {
		return err
	}
	tcp, err := h.Listener()
	if err != nil {
		return err
	}
	d.ingress.activated.Store(h.Activated)
	return d.tenure.keep(func() { d.ingress.listener, d.ingress.listens = tcp, h.ListenAddress }, func() { _ = tcp.Close() })
}

// openListener makes the listener the one that the configuration names, unless the supervisor holds the port.
func (d *Daemon) openListener(ctx context.Context) error {
	in, wanted := &d.ingress, d.config().Listen
	now := in.listener
	if in.broken.Swap(false) { // front failed on it, and closed it
		now = nil
	}
	if now == nil {
		activated, err := d.system.activated()
		if err != nil {
			return err
		}
		if activated != nil {
			in.activated.Store(true)
			return d.tenure.keep(func() { in.listener, in.listens, in.served = activated, wanted, false }, func() { _ = activated.Close() })
		}
	}
	switch {
	case now != nil && in.listens == wanted:
		return nil
	case now != nil && in.activated.Load():
		d.log.Warn().Msg("listen has changed, but the supervisor holds the port; staying on " + now.Addr().String() + ". Try: gateway service install --socket, then restart the socket unit")
		return nil
	}
	opened, err := d.system.listen(ctx, wanted)
	switch {
	case err == nil:
		return d.tenure.keep(func() { in.retired, in.listener, in.listens, in.served = now, opened, wanted, false }, func() { _ = opened.Close() })
	case now == nil:
		return err
	default: // better to be found where it was than nowhere
		d.log.Error().Err(err).Msg("the new listen address cannot be used; staying on " + in.listens + ". Try: fix listen, then gateway restart")
		return nil
	}
}

// serve makes the listeners known to front and carries on with the connections that the gateway before this one held.
// All wait until open.
func (d *Daemon) serve(context.Context, fsm.Entry) error {
	in := &d.ingress
	if in.front == nil {
		f := d.system.front(server.Options{Lifecycle: lifecycle{d}, Version: d.Version, Metrics: d.outside.metrics.handler(), Log: d.subsystem("server")})
		if err := d.tenure.keep(func() { in.front = f }, nil); err != nil {
			return err
		}
		d.outside.metrics.front.Store(&f)
		if err := d.serveOn(in.socket, true); err != nil {
			return err
		}
	}
	if !in.served {
		if err := d.serveOn(in.listener, false); err != nil {
			return err
		}
		if err := d.tenure.keep(func() { in.served = true }, nil); err != nil {
			return err
		}
	}
	h := d.handover.inherited
	if h == nil {
		return nil
	}
	carried, err := h.Conns()
	if err != nil {
		d.log.Warn().Err(err).Msg("carried connections are lost")
	}
	return d.tenure.keep(func() { in.carried = append(in.carried, carried...) }, func() { drop(carried) })
}

// serveOn serves a listener until it is closed or fails.
func (d *Daemon) serveOn(ln net.Listener, local bool) error {
	serve, err := d.ingress.front.Listen(ln, local)
	if err != nil {
		return err
	}
	go func() {
		if err := serve(); err != nil {
			d.log.Error().Err(err).Msg("the server failed. Try: gateway run, and report it when it fails again")
			d.ingress.broken.Store(d.ingress.broken.Load() || !local)
			d.ingress.newest.Load().Raise(fsm.Outcome{Event: fsm.ServerFailed, Reason: err.Error()})
		}
	}()
	return nil
}

// listeningOn is the address that clients can reach, empty before it is known.
func (d *Daemon) listeningOn() string {
	if a := d.ingress.address.Load(); a != nil {
		return *a
	}
	return ""
}

// adoptForwarded serves connections whose answers have just ended in the predecessor.
func (d *Daemon) adoptForwarded(conns []carry.Connection) {
	for _, c := range conns {
		d.ingress.front.Adopt(c)
	}
}

// drop closes this process's copies of connections that are somebody else's now.
func drop(conns []carry.Connection) {
	for _, c := range conns {
		_ = c.Close()
	}
}
