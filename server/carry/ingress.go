package carry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Options is what an Ingress needs. All are needed but TLS, where Secure is never true.
type Options struct {
	// TLS is what clients are offered while Secure says that they are to speak TLS.
	TLS    *tls.Config
	Secure func() bool
	// IdleTimeout is how long net/http waits for a further request.
	IdleTimeout time.Duration
	// TooMany is the document that answers a connection beyond a limit, which is named by its key in the configuration.
	TooMany func(limit string) string
	// Stopping is the document that answers a carried request that nobody will serve.
	Stopping string
	// Crowded is called, once in a while, when connections are sent away.
	Crowded func(limit string)
	// Impossible is called when an occurrence cannot be while the code is right. It must not block.
	Impossible func(Phase, Occurrence)
}

// Ingress is where clients come in: the listeners of one process and every connection that is open. It serves through
// an http.Server, whose ConnContext and ConnState the caller points here.
type Ingress struct {
	opts    Options
	roster  *roster
	bouncer *bouncer
	closing sync.WaitGroup // of WebSockets that only their clients have to close

	mu        sync.Mutex
	listeners []*listener
}

// NewIngress returns an ingress without a listener.
func NewIngress(opts Options) *Ingress {
	return &Ingress{opts: opts, roster: newRoster(opts), bouncer: newBouncer(opts)}
}

// Listen returns what an http.Server is to serve of a TCP or Unix listener. Connections wait in the kernel until
// Resume. local is for the control socket, which speaks no TLS and has no limits.
func (i *Ingress) Listen(inner net.Listener, local bool) (net.Listener, error) {
	d, ok := inner.(deadliner)
	if !ok {
		return nil, fmt.Errorf("carry: cannot serve a %T", inner)
	}
	ln := newListener(d, local, i.opts, i.roster, i.bouncer)
	ln.pause()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listeners = append(i.listeners, ln)
	return ln, nil
}

// Forget is for a listener that serves no more.
func (i *Ingress) Forget(ln net.Listener) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listeners = slices.DeleteFunc(i.listeners, func(l *listener) bool { return net.Listener(l) == ln })
}

// ConnState is for the http.Server of the same name: it tells when a request is answered.
func (i *Ingress) ConnState(nc net.Conn, state http.ConnState) {
	if c, ok := nc.(*Served); ok && state == http.StateIdle {
		c.answered()
	}
}

// Limit puts limits in force: the number of connections at once, and from one address; 0 for any number. Connections
// that are open stay.
func (i *Ingress) Limit(most, perAddress int) { i.roster.limit(most, perAddress) }

// Carry stops accepting and takes every connection that is not being answered from net/http: idle ones, ones whose
// request is arriving, and ones whose handler gives them up; paused is called before, to have them do so. Connections
// that are being answered have until ctx ends, and those that speak TLS stay.
func (i *Ingress) Carry(ctx context.Context, paused func()) []Connection {
	i.roster.begin()
	for _, ln := range i.all() {
		ln.pause()
		ln.settle()
	}
	paused()
	for _, c := range i.roster.all() {
		_ = c.happens(CarryBegins)
	}
	return i.roster.settle(ctx)
}

// Next waits, after Carry, for connections whose answers end, and takes them; none when all have ended, or ctx.
func (i *Ingress) Next(ctx context.Context) []Connection { return i.roster.next(ctx) }

// Resume accepts connections, the carried ones first: those of the process before this one, or those that Carry took
// in vain.
func (i *Ingress) Resume(carried []Connection) {
	carried = slices.Concat(carried, i.roster.end())
	for _, c := range i.roster.all() {
		_ = c.happens(CarryOff)
	}
	for _, p := range carried {
		i.Adopt(p)
	}
	for _, ln := range i.all() {
		ln.resume()
	}
}

// Adopt serves a connection that was carried here, after Resume.
func (i *Ingress) Adopt(p Connection) {
	if p.CloseSent {
		i.closing.Go(func() { awaitClose(p.Conn) })
		return
	}
	_ = p.SetDeadline(time.Time{})
	if ln := i.listenerFor(p.Local); ln != nil {
		ln.inject(p)
	} else {
		_ = p.Close()
	}
}

// Refuse ends carried connections that nobody will serve: 503 to those whose request was read.
func (i *Ingress) Refuse(carried []Connection) {
	var ends sync.WaitGroup
	for _, p := range slices.Concat(carried, i.roster.end()) {
		ends.Go(func() {
			switch {
			case p.CloseSent:
				awaitClose(p.Conn)
			case len(p.Unanswered) == 0:
				_ = p.Close()
			default:
				sayUnavailable(p.Conn, i.opts.Stopping)
			}
		})
	}
	ends.Wait()
}

// CloseUntouched closes the connections from which nothing was read here. net/http, when it shuts down, would wait five
// seconds for their first requests.
func (i *Ingress) CloseUntouched() {
	for _, c := range i.roster.all() {
		if c.isIn(New, Arrived) {
			_ = c.Close()
		}
	}
}

// AwaitClosing waits for the WebSockets that only their clients have to close, a moment each.
func (i *Ingress) AwaitClosing() { i.closing.Wait() }

// Ended waits until no connection is open, or until ctx ends.
func (i *Ingress) Ended(ctx context.Context) { i.roster.ended(ctx) }

// Sealed is how many connections are open that cannot be carried, because they speak TLS.
func (i *Ingress) Sealed() int {
	n, _ := i.roster.counts()
	return n
}

// Open is how many connections are open that do not come by the control socket.
func (i *Ingress) Open() int {
	i.roster.mu.Lock()
	defer i.roster.mu.Unlock()
	return i.roster.remote
}

// SentAway is how many connections were beyond a limit, by its key in the configuration.
func (i *Ingress) SentAway() map[string]uint64 { return i.bouncer.sentAway() }

func (i *Ingress) all() []*listener {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.listeners)
}

// listenerFor finds where a carried connection belongs: the newest listener of its kind. Nil when there is none,
// because the server was closed.
func (i *Ingress) listenerFor(local bool) *listener {
	for _, ln := range slices.Backward(i.all()) {
		if ln.local == local {
			return ln
		}
	}
	return nil
}
