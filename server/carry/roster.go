package carry

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
)

// Connection is a client's connection on its way: from the listener into this process, and from this process to whoever
// serves next. Its JSON is what goes to the next process, which may be of another release.
type Connection struct {
	net.Conn `json:"-"`
	// Local: it came through the control socket.
	Local bool `json:"local"`
	// TLS: the client expects TLS. No handshake was answered, so whoever serves it begins.
	TLS bool `json:"tls,omitempty"`
	// CloseSent: it was a WebSocket, and its client was told to come back over another connection. Only the client's
	// own close is missing.
	CloseSent bool `json:"parted,omitempty"`
	// Unanswered is what was read and not answered: it is read again by whoever serves next.
	Unanswered []byte `json:"read"`
}

// roster knows every open connection.
type roster struct {
	opts Options

	mu     sync.Mutex
	open   map[*Served]struct{}
	parked []Connection
	change chan struct{}
	// parking: connections that come now are parked too.
	parking bool

	most           int // connections at once; 0 for any number
	mostPerAddress int // from one address
	remote         int // of open, those that do not come by the control socket
	from           map[netip.Prefix]int
}

func newRoster(opts Options) *roster {
	return &roster{opts: opts, open: make(map[*Served]struct{}), from: make(map[netip.Prefix]int), change: make(chan struct{})}
}

func (r *roster) add(p Connection) *Served {
	c := &Served{Conn: p.Conn, roster: r, from: network(p.RemoteAddr()), Local: p.Local, TLS: p.TLS, pending: p.Unanswered, replay: p.Unanswered}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = struct{}{}
	r.countLocked(c, 1)
	if r.parking {
		c.beginParking()
	}
	return c
}

// carry adds a connection that was carried over.
func (r *roster) arrived(p Connection) *Served {
	c := r.add(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = len(p.Unanswered) == 0
	c.between = c.fresh && !c.TLS
	return c
}

func (r *roster) remove(c *Served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(c)
}

func (r *roster) park(c *Served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parking {
		r.parked = append(r.parked, Connection{Conn: c.Conn, Local: c.Local, TLS: c.TLS, CloseSent: c.parted, Unanswered: bytes.TrimLeft(c.pending, lineEnds)})
	} else {
		_ = c.Conn.Close() // parking was called off in this instant, and net/http has let go of it
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

func (r *roster) wakeLocked() {
	close(r.change)
	r.change = make(chan struct{})
}

// setParking begins or ends parking for connections that come.
func (r *roster) setParking(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parking = on
}

// endParking ends it, and takes the connections that were parked since settle.
func (r *roster) endParking() []Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parking = false
	parked := r.parked
	r.parked = nil
	return parked
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

// leaving is how many open connections have still to be parked, or to end. A connection that is parked
// after the caller has read r.change closes that.
func (r *roster) leaving() (n int) {
	for _, c := range r.all() {
		if !c.stays() {
			n++
		}
	}
	return n
}

// wake is for a connection whose sealing changes what is waited for.
func (r *roster) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked()
}

// settle waits until no connection is open but parked ones and those that stay, or until ctx ends, and takes the parked ones.
func (r *roster) settle(ctx context.Context) []Connection {
	for {
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		for _, c := range r.all() {
			c.leave() // its client answers when it gets to it, and others wait
		}
		open := r.leaving()
		r.mu.Lock()
		if open == 0 || ctx.Err() != nil {
			parked := r.parked
			r.parked = nil
			r.mu.Unlock()
			return parked
		}
		r.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

// next waits until some connection is parked and takes those that are; none when every connection has
// ended, or ctx.
func (r *roster) next(ctx context.Context) []Connection {
	for {
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		open := r.leaving()
		r.mu.Lock()
		parked := r.parked
		r.parked = nil
		r.mu.Unlock()
		if len(parked) > 0 || open == 0 || ctx.Err() != nil {
			return parked
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
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
