package server

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"

	"gateway/server/api"
)

// Parked is a connection that waits for whoever serves next.
type Parked struct {
	Conn  net.Conn
	Local bool
	// TLS reports whether the client expects TLS; nothing was answered then.
	TLS bool
	// Parted reports whether the client was told to come back over another connection, and only has to close this
	// one.
	Parted bool
	// Read is what was read from the connection and not answered.
	Read []byte
}

// roster knows every open connection.
type roster struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	parked []Parked
	change chan struct{}
	// parking: connections that come now are parked too.
	parking bool
	limits  api.Limits
	remote  int                  // of open, those that do not come by the control socket
	from    map[netip.Prefix]int // the same, by address
}

func newRoster() *roster {
	return &roster{open: make(map[*conn]struct{}), from: make(map[netip.Prefix]int), change: make(chan struct{})}
}

func (r *roster) add(p Parked) *conn {
	c := &conn{Conn: p.Conn, roster: r, from: network(p.Conn.RemoteAddr()), local: p.Local, tls: p.TLS, pending: p.Read, replay: p.Read}
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
func (r *roster) carry(p Parked) *conn {
	c := r.add(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = len(p.Read) == 0
	c.between = c.fresh && !c.tls
	return c
}

func (r *roster) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(c)
}

func (r *roster) park(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parking {
		r.parked = append(r.parked, Parked{Conn: c.Conn, Local: c.local, TLS: c.tls, Parted: c.parted, Read: bytes.TrimLeft(c.pending, lineEnds)})
	} else {
		_ = c.Conn.Close() // parking was called off in this instant, and net/http has let go of it
	}
	r.forgetLocked(c)
}

func (r *roster) forgetLocked(c *conn) {
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
func (r *roster) endParking() []Parked {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parking = false
	parked := r.parked
	r.parked = nil
	return parked
}

func (r *roster) all() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := make([]*conn, 0, len(r.open))
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
func (r *roster) settle(ctx context.Context) []Parked {
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
func (r *roster) next(ctx context.Context) []Parked {
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
