package fsm

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// The hand-over to a successor (mode spawn), as a model that a reader can follow and a test can exhaust. Both
// processes run the real machine with the real table; what their effects do to the world is told here in as
// few words as it can be:
//
//	old, Draining      starts the successor; goes on once that is prepared, or calls the restart off
//	new                is prepared, and holds nothing: if the old one dies or lets go, it ends
//	old, ShuttingDown  closes its store; nobody owns the lanes now
//	old, Respawning    gives away copies of the lock, the listener and the waiting connections
//	new, Starting      opens the store, under a new epoch; says that it is ready; serves nothing
//	old, Respawning    tells it to serve: the point of no return, in one instant with the hop to Stopped
//	new, Starting      hears that, or hears that the old one is dead: it holds everything, so it serves
//	new, Running       owns the lanes and accepts
//
// Until the point of no return the old one may kill the new one, and starts again in itself with what it
// never let go of. The explorer decides who does the next thing, who dies when, when somebody asks for a stop,
// and when so much time passes that a deadline falls due.

// earth is what both processes live in.
type earth struct {
	mu       sync.Mutex
	changed  chan struct{} // closed when anything changed
	epoch    int           // of the store; each opening raises it
	old, new *proc
	fault    string // what is broken on purpose
	asked    bool   // a restart was asked for
	stop     bool   // a stop was asked for
	mourned  bool   // the process in charge was killed from outside, or gave up
}

// proc is a process as the system sees it.
type proc struct {
	*earth
	name string
	m    *Machine
	exit chan ExitCode

	alive          bool
	lock, listener bool // it has the descriptor
	store          int  // the epoch under which it has opened the store; 0 for closed
	lanes, accepts bool
	heir           bool     // it has told its successor to serve
	deaf           bool     // it has closed its ear: what is said to it now fails
	stopped        bool     // it was asked to stop
	said           []string // to it, and not heard yet
	next           string   // what it is about to do
	let            chan bool
	until          time.Time // when it stops waiting to hear something
}

// What can be broken on purpose, to see that the promises notice.
const (
	faultBeside   = "the old one starts again beside the successor"
	faultHasty    = "the successor serves before it is told to"
	faultListener = "the old one closes the listener before it has given it away"
	faultLock     = "the lock is not given away with the listener"
	faultEarly    = "the successor is given everything before the store is closed"
	faultDeaf     = "the successor gives up and leaves its ear open"
)

const (
	patience    = 7 * time.Second // with a successor that does not say that it is prepared
	forbearance = 5 * time.Second // with a predecessor that does not say "serve"
)

func newEarth(t *testing.T, fault string) *earth {
	w := &earth{fault: fault, changed: make(chan struct{})}
	w.old = &proc{earth: w, name: "old", alive: true, let: make(chan bool)}
	w.new = &proc{earth: w, name: "new", let: make(chan bool)}
	w.old.boot(t)
	synctest.Wait()
	return w
}

// change changes the world on behalf of a process, unless that is dead.
func (p *proc) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive {
		f()
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// wait waits until cond holds; false when the process is dead or ctx has ended before.
func (p *proc) wait(ctx context.Context, cond func() bool) bool {
	for {
		p.mu.Lock()
		alive, holds, changed := p.alive, cond(), p.changed
		p.mu.Unlock()
		if !alive || holds {
			return alive && holds
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// step waits until the explorer lets the process do the next thing, and whether it succeeds.
func (p *proc) step(ctx context.Context, next string) (done bool) {
	p.change(func() { p.next = next })
	defer p.change(func() { p.next = "" })
	dead := make(chan struct{})
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		p.wait(watch, func() bool { return false })
		close(dead)
	}()
	select {
	case done = <-p.let:
		return done
	case <-dead:
		return false
	}
}

// hear waits for the other one to say something: "" when that one is dead, or nothing came in time.
func (p *proc) hear(ctx context.Context, within time.Duration) (said string, inTime bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	p.change(func() { p.until = time.Now().Add(within) })
	defer p.change(func() { p.until = time.Time{} })
	other := p.other()
	inTime = p.wait(ctx, func() bool { return len(p.said) > 0 || !other.alive })
	p.change(func() {
		if len(p.said) > 0 {
			said, inTime, p.said = p.said[0], true, p.said[1:]
		}
	})
	return said, inTime
}

// tell says something to the other process, and does what goes with it in the same instant; false when that
// one cannot hear it.
func (p *proc) tell(to *proc, words string, with func()) (told bool) {
	p.change(func() {
		if told = to.alive && !to.deaf; told {
			to.said = append(to.said, words)
			with()
		}
	})
	return told
}

func (p *proc) other() *proc {
	if p == p.old {
		return p.new
	}
	return p.old
}

// end is the death of a process: the system closes what it had.
func (p *proc) end() {
	p.change(func() {
		p.alive, p.lock, p.listener, p.store, p.lanes, p.accepts, p.next, p.said = false, false, false, 0, false, false, "", nil
		p.until = time.Time{}
	})
	p.mu.Lock()
	m := p.m
	p.mu.Unlock()
	if m != nil {
		m.Notify(Request{Event: Stop, Actor: "the end of the process"}) // a ghost: it changes nothing any more
	}
}

// kill ends the other process, unless this one is a ghost itself.
func (p *proc) kill(other *proc) {
	mine := false
	p.change(func() { mine = true })
	if mine {
		other.end()
	}
}

// boot starts the machine of a process.
func (p *proc) boot(t *testing.T) {
	m, err := New(Config{
		Table: Lifecycle(), Timeouts: func() Timeouts { return seconds }, BootID: p.name, Log: zerolog.Nop(),
		Effects: map[Effect]EffectFunc{
			EffectStart: p.start,
			EffectReset: p.reset,
			EffectDrain: func(ctx context.Context, e Entry) Outcome { return p.drain(ctx, e, t) },
			EffectOpen: func(context.Context, Entry) Outcome {
				p.change(func() { p.lanes, p.accepts = true, true })
				return Outcome{}
			},
			EffectResume: func(context.Context, Entry) Outcome {
				p.kill(p.new)
				p.change(func() { p.lanes = true })
				return Outcome{}
			},
			EffectClose:   p.close,
			EffectRespawn: p.respawn,
			EffectRelease: func(context.Context, Entry) Outcome {
				if p == p.old && !p.heir {
					p.kill(p.new) // if there is one
				}
				return Outcome{}
			},
			EffectAbandon: func(context.Context, Entry) Outcome { return Outcome{} },
		},
	})
	require.NoError(t, err)
	exit := make(chan ExitCode, 1)
	p.mu.Lock()
	p.m, p.exit = m, exit
	p.mu.Unlock()
	go func() {
		code := m.Run()
		p.change(func() { p.mourned = p.mourned || (code != ExitOK && p == p.inCharge() && !p.old.heir) })
		p.end()
		exit <- code
	}()
}

func (p *proc) start(ctx context.Context, _ Entry) Outcome {
	if p == p.old && p.m.Snapshot().Generation == 0 { // the first start of all is not what this is about
		p.change(func() { p.epoch++; p.lock, p.listener, p.store = true, true, p.epoch })
		return Outcome{Event: Started}
	}
	if !p.step(ctx, "opens the store") {
		return Outcome{Event: StartFailed}
	}
	p.change(func() { p.epoch++; p.store = p.epoch })
	if p == p.old {
		return Outcome{Event: Started}
	}
	if p.fault == faultHasty {
		p.change(func() { p.lanes, p.accepts = true, true })
	}
	p.step(ctx, "says that it is ready")
	p.tell(p.old, "ready", func() {})
	if said, inTime := p.hear(ctx, forbearance); said != "serve" && !inTime {
		said = ""
		p.change(func() { // closes its ear, and looks once more
			if p.deaf = p.fault != faultDeaf; len(p.said) > 0 {
				said = p.said[0]
			}
		})
		if said != "serve" {
			p.step(ctx, "gives up")
			return Outcome{Event: StartFailed}
		}
	}
	return Outcome{Event: Started} // told to serve, or left alone with everything
}

func (p *proc) drain(ctx context.Context, e Entry, t *testing.T) Outcome {
	if p.step(ctx, "starts the successor") {
		p.change(func() { p.new.alive = true })
		go p.new.candidate(t)
	}
	if said, _ := p.hear(ctx, patience); said != "prepared" {
		return Outcome{Event: Resume}
	}
	if e.Report(ctx, Outcome{Event: Prepared}) != nil {
		return Outcome{}
	}
	p.change(func() { p.lanes = false })
	if !p.step(ctx, "has drained") {
		return Outcome{}
	}
	return Outcome{Event: Drained}
}

// candidate is the new process until it has anything.
func (p *proc) candidate(t *testing.T) {
	if p.step(context.Background(), "is prepared") {
		p.tell(p.old, "prepared", func() {})
	} else {
		p.end()
	}
	if said, _ := p.hear(context.Background(), 1000*time.Hour); said != "go" {
		p.end()
		return
	}
	p.boot(t)
}

func (p *proc) close(ctx context.Context, _ Entry) Outcome {
	p.step(ctx, "closes the store")
	p.change(func() {
		if p.lanes, p.accepts = false, false; p.fault != faultEarly {
			p.store = 0
		}
		p.listener = p.listener && p.fault != faultListener
	})
	return Outcome{Event: Closed}
}

func (p *proc) respawn(ctx context.Context, e Entry) Outcome {
	if !p.step(ctx, "gives away the lock and the listener") {
		return Outcome{}
	}
	p.tell(p.new, "go", func() { p.new.lock, p.new.listener = p.fault != faultLock, p.listener })
	if said, _ := p.hear(ctx, 1000*time.Hour); said != "ready" {
		return Outcome{Event: RespawnFailed}
	}
	if !p.step(ctx, "tells it to serve") {
		return Outcome{}
	}
	err := e.Commit(ctx, func() func() { return func() {} }, func(Hop) error {
		if !p.tell(p.new, "serve", func() { p.heir = true }) {
			return context.Canceled // it is dead, or has given up
		}
		return nil
	}, Outcome{Event: Respawned})
	if err != nil {
		return Outcome{Event: RespawnFailed}
	}
	return Outcome{}
}

func (p *proc) reset(ctx context.Context, e Entry) Outcome {
	if p.fault != faultBeside {
		p.kill(p.new)
	}
	return p.start(ctx, e)
}

// serving reports whether the process is a gateway that serves.
func (p *proc) serving() bool { return p.alive && p.m != nil && p.m.Snapshot().State == Running }
