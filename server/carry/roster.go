package carry

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
)

// roster knows every open connection, and those that are carried until somebody takes them.
type roster struct {
	opts Options

	mu      sync.Mutex
	open    map[*Served]struct{}
	carried []Connection
	change  chan struct{} // closed when open or carried changed, or what is waited for
	// carrying: connections that come now are to be carried too.
	carrying bool

	most           int // connections at once; 0 for any number
	mostPerAddress int // from one address
	remote         int // of open, those that do not come by the control socket
	from           map[netip.Prefix]int
}

func newRoster(opts Options) *roster {
	return &roster{opts: opts, open: make(map[*Served]struct{}), from: make(map[netip.Prefix]int), change: make(chan struct{})}
}

// add has this process serve a connection.
func (r *roster) add(p Connection, first Phase) *Served {
	c := &Served{roster: r, from: network(p.RemoteAddr()), Connection: p, phase: first, replay: p.Unanswered}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = struct{}{}
	r.countLocked(c, 1)
	if r.carrying {
		_ = c.happens(CarryBegins)
	}
	return c
}

// accepted adds a connection that a client has just made.
func (r *roster) accepted(p Connection) *Served { return r.add(p, New) }

// arrived adds a connection that was carried here.
func (r *roster) arrived(p Connection) *Served {
	if len(p.Unanswered) == 0 && !p.TLS {
		return r.add(p, Arrived)
	}
	return r.add(p, New)
}

func (r *roster) remove(c *Served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(c)
}

// carry takes a connection that nobody here has any more. One that comes when carrying was called off in this instant
// is closed.
func (r *roster) carry(c *Served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.carrying {
		p := c.Connection
		p.Unanswered = bytes.TrimLeft(p.Unanswered, lineEnds)
		r.carried = append(r.carried, p)
	} else {
		_ = c.Conn.Close()
	}
	r.forgetLocked(c)
}

func (r *roster) forgetLocked(c *Served) {
	if _, open := r.open[c]; open {
		delete(r.open, c)
		r.countLocked(c, -1)
	}
	r.wakeLocked()
}

// countLocked keeps the numbers of connections in step with the connections.
func (r *roster) countLocked(c *Served, n int) {
	if c.Local {
		return
	}
	r.remote += n
	if r.from[c.from] += n; r.from[c.from] <= 0 {
		delete(r.from, c.from)
	}
}

// wake is for a connection whose phase changes what is waited for.
func (r *roster) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked()
}

func (r *roster) wakeLocked() {
	close(r.change)
	r.change = make(chan struct{})
}

// begin has connections that come from now on be carried.
func (r *roster) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carrying = true
}

// end calls carrying off, and takes the connections that were carried and not taken.
func (r *roster) end() []Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carrying = false
	return r.takeLocked()
}

func (r *roster) takeLocked() []Connection {
	carried := r.carried
	r.carried = nil
	return carried
}

func (r *roster) all() []*Served {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := make([]*Served, 0, len(r.open))
	for c := range r.open {
		conns = append(conns, c)
	}
	return conns
}

// sealed is how many open connections can only be ended here; leaving is how many others are open.
func (r *roster) counts() (sealed, leaving int) {
	for _, c := range r.all() {
		if c.isIn(Sealed) {
			sealed++
		} else {
			leaving++
		}
	}
	return sealed, leaving
}

// await waits until enough says so, or ctx ends, and takes what is carried by then.
func (r *roster) await(ctx context.Context, enough func(leaving, carried int) bool) []Connection {
	for {
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		_, leaving := r.counts() // a connection that is carried after this closes change
		r.mu.Lock()
		if ctx.Err() != nil || enough(leaving, len(r.carried)) {
			carried := r.takeLocked()
			r.mu.Unlock()
			return carried
		}
		r.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

// settle waits until no connection is open but those that stay, or until ctx ends, and takes the carried ones.
func (r *roster) settle(ctx context.Context) []Connection {
	return r.await(ctx, func(leaving, _ int) bool { return leaving == 0 })
}

// next waits until some connection is carried and takes those that are; none when every connection has ended, or ctx.
func (r *roster) next(ctx context.Context) []Connection {
	return r.await(ctx, func(leaving, carried int) bool { return leaving == 0 || carried > 0 })
}

// ended waits until no connection is open, or until ctx ends.
func (r *roster) ended(ctx context.Context) {
	for {
		r.mu.Lock()
		open, change := len(r.open), r.change
		r.mu.Unlock()
		if open == 0 || ctx.Err() != nil {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

// limit puts limits in force. Connections that are open stay.
func (r *roster) limit(most, perAddress int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most, r.mostPerAddress = most, perAddress
}

// full reports whether a further connection from there would be one too many, and by which limit.
func (r *roster) full(from netip.Prefix) (limit string, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.most > 0 && r.remote >= r.most:
		return "limits.connections", true
	case r.mostPerAddress > 0 && from.IsValid() && r.from[from] >= r.mostPerAddress:
		return "limits.connections_per_address", true
	}
	return "", false
}

// network is what counts as one address; what has none, such as a Unix socket, is the zero value.
func network(addr net.Addr) netip.Prefix {
	if addr == nil {
		return netip.Prefix{}
	}
	return Network(addr.String())
}

// Network is what counts as one address of a client at host:port: an IPv4 address, or a /64 network of IPv6, whose owner
// has all of it. The zero value for what is no such address.
func Network(hostPort string) netip.Prefix {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits) // the bits fit
	return p
}
