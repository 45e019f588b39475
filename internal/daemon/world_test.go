package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/internal/statedir"
	"gateway/queue"
	"gateway/server"
	"gateway/server/api"
	"gateway/server/carry"
)

// world is the real daemon with its real effects on a system whose answers the explorer chooses.
type world struct {
	*Daemon
	exited chan struct{}
	over   chan struct{} // closed at the end: no question is answered after it

	mu        sync.Mutex
	questions []*question
	stopAsked bool
	wishes    []time.Duration
	wish      *time.Duration // what the newest restart asked the drain to wait; nil for the setting
	fails     chan struct{}  // makes the listener on TCP fail
	things
}

// things are what the effects have done to the system.
type things struct {
	locks      int  // how often this process has the lock
	stores     int  // stores that are open
	twice      bool // a store was opened while another one was open
	starts     int  // lanes that start turns
	listeners  int  // listeners that are open
	published  bool // front has a backend
	successors int  // processes that were started and not ended
	listens    bool // clients can come in by TCP
	replaced   bool // another image runs in this process
}

// question is a call that has not returned yet.
type question struct {
	name    string
	answers []string
	owner   bool // it holds up the machine itself
	reply   chan string
}

// The errors of the system.
var (
	errRefused = errors.New("refused")
	errOver    = errors.New("the exploration is over")
)

// ask returns the answer that the explorer chooses, or the error of ctx. A call that does not end with its
// context asks with [context.Background].
func (w *world) ask(ctx context.Context, q *question) (answer string, err error) {
	q.reply = make(chan string)
	w.mu.Lock()
	w.questions = append(w.questions, q)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.questions = slices.DeleteFunc(w.questions, func(p *question) bool { return p == q })
		w.mu.Unlock()
	}()
	select {
	case answer = <-q.reply:
		return answer, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-w.over:
		return "", errOver
	}
}

// yes asks a question that is answered with ok or refused.
func (w *world) yes(ctx context.Context, name string, owner bool) error {
	answer, err := w.ask(ctx, &question{name: name, answers: []string{"ok", "refused"}, owner: owner})
	if err == nil && answer == "refused" {
		err = errRefused
	}
	return err
}

// change changes the things.
func (w *world) change(f func(*things)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.things)
}

func (w *world) look() (th things, asked []*question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.things, slices.Clone(w.questions)
}

// system is what the daemon acts on in the world.
func (w *world) system() system {
	return system{
		signals: func(func(os.Signal), ...os.Signal) signals { return noSignals{} },
		acquire: func(string) (lock, error) {
			if err := w.yes(context.Background(), "take the lock", false); err != nil {
				return nil, err
			}
			w.change(func(th *things) { th.locks++ })
			return &fakeLock{w: w}, nil
		},
		activated: func() (net.Listener, error) { return nil, nil },
		listen:    func(context.Context, string) (net.Listener, error) { return w.newListener(), nil },
		socket:    func(context.Context, string) (net.Listener, error) { return w.newListener(), nil },
		front: func(server.Options) front {
			return &fakeFront{w: w, closed: make(chan struct{})}
		},
		agents: func(*config.Config, zerolog.Logger) (agents, error) { return fakeAgents{}, nil },
		lanes: func(context.Context, string, queue.Config) (lanes, error) { // it does not end with its context
			if err := w.yes(context.Background(), "open the store", false); err != nil {
				return nil, err
			}
			w.change(func(th *things) {
				th.stores++
				th.twice = th.twice || th.stores > 1
			})
			return &fakeLanes{w: w}, nil
		},
		candidate: func(ctx context.Context, _ config.Source, _ handoff.Question) (config.Loaded, error) {
			return w.current.Load().loaded, w.yes(ctx, "read the configuration", false)
		},
		ask: func(ctx context.Context, _ string, _ []string, _ handoff.Question) (string, []string, error) {
			w.change(func(th *things) { th.successors++ })
			defer w.change(func(th *things) { th.successors-- })
			return "test", nil, w.yes(ctx, "prepare", false)
		},
		spawn: func(ctx context.Context, _ string, _ []string, _ handoff.Question) (successor, error) {
			w.change(func(th *things) { th.successors++ })
			if err := w.yes(ctx, "prepare", false); err != nil {
				w.change(func(th *things) { th.successors-- })
				return nil, err
			}
			return &fakeSuccessor{w: w}, nil
		},
		replace: func(string, []string, handoff.Handover) error {
			if err := w.yes(context.Background(), "replace the image", true); err != nil {
				return err
			}
			w.change(func(th *things) { th.replaced = true })
			<-w.over
			return errOver
		},
		shed: func() error { return nil },
		room: func(string) error { return nil },
	}
}

// fakeFile is something with a descriptor that nobody uses.
type fakeFile struct{}

func (fakeFile) SyscallConn() (syscall.RawConn, error) { return nil, errRefused }

type fakeLock struct {
	fakeFile
	w    *world
	free bool
}

func (l *fakeLock) Claim() error                  { return nil }
func (l *fakeLock) Describe(statedir.Owner) error { return nil }
func (l *fakeLock) Leave() error                  { return l.Release() }
func (l *fakeLock) Release() error {
	l.w.change(func(th *things) {
		if !l.free {
			l.free = true
			th.locks--
		}
	})
	return nil
}

type fakeListener struct {
	fakeFile
	w      *world
	closed bool
}

func (w *world) newListener() *fakeListener {
	w.change(func(th *things) { th.listeners++ })
	return &fakeListener{w: w}
}

func (l *fakeListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l *fakeListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 18789} }

func (l *fakeListener) Close() error {
	l.w.change(func(th *things) {
		if !l.closed {
			l.closed = true
			th.listeners--
		}
	})
	return nil
}

// fakeFront serves nobody. Its newest listener on TCP fails when the world's channel fails is closed.
type fakeFront struct {
	w      *world
	once   sync.Once
	closed chan struct{}
}

func (f *fakeFront) Listen(inner net.Listener, local bool) (func() error, error) {
	var fails chan struct{}
	if !local {
		fails = make(chan struct{})
		f.w.change(func(th *things) { th.listens, f.w.fails = true, fails })
	}
	return func() error {
		select {
		case <-f.closed:
			return nil
		case <-fails:
			_ = inner.Close() // as net/http does
			return errRefused
		}
	}, nil
}

func (f *fakeFront) Publish(*api.Backend)                          { f.w.change(func(th *things) { th.published = true }) }
func (f *fakeFront) Resume([]carry.Connection)                     {}
func (f *fakeFront) Retire(api.Notice)                             {}
func (f *fakeFront) Carry(context.Context) []carry.Connection      { return nil }
func (f *fakeFront) CarryNext(context.Context) []carry.Connection  { return nil }
func (f *fakeFront) Adopt(carry.Connection)                        {}
func (f *fakeFront) Refuse([]carry.Connection)                     {}
func (f *fakeFront) Relay(func(context.Context) (net.Conn, error)) {}
func (f *fakeFront) Sealed() int                                   { return 0 }
func (f *fakeFront) Leave(context.Context) error                   { return nil }
func (f *fakeFront) Stats() server.Stats                           { return server.Stats{} }
func (f *fakeFront) Close(context.Context) error {
	f.once.Do(func() {
		close(f.closed)
		f.w.change(func(th *things) { th.published = false })
	})
	return nil
}

type fakeAgents struct{}

func (fakeAgents) Run(context.Context, queue.Work) error { return nil }
func (fakeAgents) Close(context.Context) error           { return nil }

// fakeLanes start turns from Resume until Drain, HandOver or Close.
type fakeLanes struct {
	w       *world
	closing sync.Once
	started bool
}

func (l *fakeLanes) set(starts bool) {
	l.w.change(func(th *things) {
		if starts != l.started {
			l.started = starts
			if starts {
				th.starts++
			} else {
				th.starts--
			}
		}
	})
}

func (l *fakeLanes) Resume() { l.set(true) }
func (l *fakeLanes) Fold()   {}
func (l *fakeLanes) Drain(ctx context.Context, _ string) error {
	l.set(false)
	return l.wait(ctx)
}

func (l *fakeLanes) wait(ctx context.Context) error {
	_, err := l.w.ask(ctx, &question{name: "wait for turns", answers: []string{"nothing runs"}})
	return err
}
func (l *fakeLanes) HandOver(ctx context.Context) error { return l.end(ctx) }
func (l *fakeLanes) Close(ctx context.Context) error    { return l.end(ctx) }
func (l *fakeLanes) end(ctx context.Context) (err error) {
	l.closing.Do(func() {
		l.set(false)
		err = l.w.yes(ctx, "close the store", false)
		l.w.change(func(th *things) { th.stores-- })
	})
	return err
}
func (l *fakeLanes) Crashed() bool       { return false }
func (l *fakeLanes) Stats() queue.Stats  { return queue.Stats{} }
func (l *fakeLanes) Lanes() []queue.Lane { return nil }

// fakeSuccessor is a process from spawn until Dismiss, or until it serves: then it is the gateway.
type fakeSuccessor struct {
	w     *world
	ended sync.Once
}

func (s *fakeSuccessor) pid() int { return 4711 }
func (s *fakeSuccessor) Go(ctx context.Context, _ handoff.Handover) error {
	return s.w.yes(ctx, "hand over", false)
}

func (s *fakeSuccessor) Serve(json.RawMessage) error {
	err := s.w.yes(context.Background(), "let it serve", true)
	if err == nil {
		s.end()
	}
	return err
}
func (s *fakeSuccessor) Forward([]carry.Connection) error { return nil }
func (s *fakeSuccessor) Leave()                           {}
func (s *fakeSuccessor) Dismiss()                         { s.end() }
func (s *fakeSuccessor) end() {
	s.ended.Do(func() { s.w.change(func(th *things) { th.successors-- }) })
}
