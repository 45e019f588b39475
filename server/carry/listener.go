package carry

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// deadliner is a listener whose Accept can be made to return: *net.TCPListener and *net.UnixListener.
type deadliner interface {
	net.Listener
	SetDeadline(t time.Time) error
}

// listener hands to net/http the connections that clients make, and those that were carried here. While it is paused,
// clients wait in the kernel's backlog: none is refused.
type listener struct {
	inner   deadliner
	opts    Options
	roster  *roster
	bouncer *bouncer
	local   bool // the control socket
	carried chan Connection
	closed  chan struct{}
	once    sync.Once

	busy sync.Mutex // held from the wait for a connection until the roster knows it

	mu     sync.Mutex
	paused chan struct{} // closed by resume; nil when not paused
}

func newListener(inner deadliner, local bool, opts Options, r *roster, b *bouncer) *listener {
	return &listener{inner: inner, opts: opts, roster: r, bouncer: b, local: local, carried: make(chan Connection), closed: make(chan struct{})}
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case p := <-l.carried:
			return l.served(l.roster.arrived(p)), nil
		case <-l.closed:
			return nil, net.ErrClosed
		default:
		}
		if resumed := l.pausedUntil(); resumed != nil {
			select {
			case p := <-l.carried:
				return l.served(l.roster.arrived(p)), nil
			case <-resumed:
			case <-l.closed:
				return nil, net.ErrClosed
			}
			continue
		}
		c, err := l.accept()
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		// pause, inject or Close ended the wait
	}
}

func (l *listener) accept() (net.Conn, error) {
	l.busy.Lock()
	defer l.busy.Unlock()
	var nc net.Conn
	for {
		var err error
		if nc, err = l.inner.Accept(); err != nil {
			return nil, err
		}
		limit, full := l.roster.full(network(nc.RemoteAddr()))
		if l.local || !full {
			break
		}
		l.bouncer.refuse(nc, l.opts.Secure(), limit)
	}
	return l.served(l.roster.accepted(Connection{Conn: nc, Local: l.local, TLS: !l.local && l.opts.Secure()})), nil
}

// served is what net/http sees of a connection.
func (l *listener) served(c *Served) net.Conn {
	if c.TLS {
		return tls.Server(c, l.opts.TLS)
	}
	return c
}

// settle waits until the roster knows every connection that was accepted before the pause.
func (l *listener) settle() {
	l.busy.Lock()
	defer l.busy.Unlock()
}

// pause stops accepting; what the kernel accepts meanwhile waits.
func (l *listener) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused == nil {
		l.paused = make(chan struct{})
		_ = l.inner.SetDeadline(time.Unix(1, 0))
	}
}

func (l *listener) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused != nil {
		close(l.paused)
		l.paused = nil
		_ = l.inner.SetDeadline(time.Time{})
	}
}

// awake sets the deadline of Accept, unless the listener is paused.
func (l *listener) awake(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused == nil {
		_ = l.inner.SetDeadline(t)
	}
}

func (l *listener) pausedUntil() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}

// inject hands a carried connection to Accept, which it wakes unless the listener is paused.
func (l *listener) inject(p Connection) {
	l.awake(time.Unix(1, 0))
	defer l.awake(time.Time{})
	select {
	case l.carried <- p:
	case <-l.closed:
		_ = p.Close()
	}
}

// Close ends Accept and closes this process's copy of the socket.
func (l *listener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.inner.Close()
	})
	return err
}

// Addr is the address of the socket.
func (l *listener) Addr() net.Addr { return l.inner.Addr() }
