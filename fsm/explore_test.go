package fsm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// world is the machine's surroundings as its effects leave them: what the gateway would hold and serve.
// Every effect waits for the explorer to say how it ends.
type world struct {
	*Machine
	exit      chan int
	say       chan Outcome
	stopAsked bool

	mu sync.Mutex // the last effect of a forced exit does not wait for the one before it
	things
}

// things are what the effects change.
type things struct {
	lock, serving, lanes bool
	successors           int
	prepared             bool   // the successor could take over
	running              Effect // the effect that has begun and not returned
	startedTwice         bool
}

// look copies the things as they are now.
func (w *world) look() things {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.things
}

func newWorld(t *testing.T, table Table) *world {
	w := &world{exit: make(chan int, 1), say: make(chan Outcome)}
	effects := make(map[Effect]EffectFunc)
	for _, spec := range table.Effects {
		effects[spec.Name] = func(ctx context.Context, _ Entry) Outcome { return w.perform(ctx, spec) }
	}
	m, err := New(Config{Table: table, Effects: effects, Timeouts: func() Timeouts { return seconds }, BootID: "b", Log: zerolog.Nop()})
	require.NoError(t, err)
	w.Machine = m
	go func() { w.exit <- m.Run() }()
	synctest.Wait()
	return w
}

// perform changes the world as the real effects do.
func (w *world) perform(ctx context.Context, spec EffectSpec) Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = spec.Name
	defer func() { w.running = "" }()
	var out Outcome
	before := func() {}
	switch spec.Name { //nolint:exhaustive // the others change nothing here
	case EffectStart, EffectReset:
		w.successors = 0
		w.lock = true
		before = func() {
			if w.serving {
				w.startedTwice = true
			}
			w.serving = true
		}
	case EffectOpen, EffectResume:
		w.successors = 0
		w.lanes = true
	case EffectDrain:
		w.successors++
		w.prepared = false
	case EffectClose:
		w.lanes = false
		before = func() { w.serving = false }
	case EffectRelease:
		w.lock, w.serving, w.successors = false, false, 0
	}
	if len(spec.Outcomes) > 0 {
		w.mu.Unlock()
		select {
		case out = <-w.say:
			if out == prepared {
				w.mu.Lock()
				w.prepared, w.lanes = true, false
				w.mu.Unlock()
				select {
				case out = <-w.say:
				case <-ctx.Done():
				}
			}
			w.mu.Lock()
			if out.Event == Started || out.Event == Closed {
				before()
			}
		case <-ctx.Done():
			w.mu.Lock()
			if spec.Name == EffectClose {
				before()
			}
		}
	}
	return out
}

// prepared is what the drain hears on its way.
var prepared = Outcome{Reason: "prepared"}

// prepares reports whether the drain still waits for the successor.
func (w *world) prepares() bool {
	th := w.look()
	return th.running == EffectDrain && !th.prepared
}

// action is one thing that can happen next.
type action struct {
	name string
	do   func(w *world)
}

// actions lists everything that can happen in the world as it stands.
func (w *world) actions(table Table) []action {
	if w.Snapshot().State == table.Final {
		return nil
	}
	var all []action
	for _, e := range table.Events {
		if e.Class == ByRequest {
			all = append(all, action{"ask " + string(e.Name), func(w *world) { w.request(e.Name) }})
		}
	}
	for _, spec := range table.Effects {
		if spec.Name == w.look().running {
			for _, o := range spec.Outcomes {
				if o == ClosedForRestart {
					continue // a close says closed; the owner knows the intent
				}
				if w.prepares() && o != Resume {
					continue // a drain ends with a successor, or calls the restart off
				}
				all = append(all, action{"report " + string(o), func(w *world) { w.say <- Outcome{Event: o} }})
			}
		}
	}
	if w.prepares() {
		all = append(all, action{"the successor is prepared", func(w *world) { w.say <- prepared }})
	}
	for i := range w.states[w.Snapshot().State].Deadlines {
		all = append(all, action{fmt.Sprintf("deadline %d", i), func(w *world) {
			d := w.states[w.Snapshot().State].Deadlines[i].sum(seconds)
			time.Sleep(time.Until(w.Snapshot().Since.Add(d))) // virtual
		}})
	}
	return append(all,
		action{"server fails", func(w *world) {
			w.box.post(mail{outcome: &outcomeMail{Outcome: Outcome{Event: ServerFailed}, generation: w.Snapshot().Generation}})
		}},
		action{"server of an earlier generation fails", func(w *world) {
			w.box.post(mail{outcome: &outcomeMail{Outcome: Outcome{Event: ServerFailed}, generation: w.Snapshot().Generation - 1}})
		}},
		action{"late outcomes", func(w *world) {
			for _, e := range table.Events {
				w.box.post(mail{outcome: &outcomeMail{Outcome: Outcome{Event: e.Name}, visit: 1 << 40}})
			}
		}},
	)
}

func (w *world) request(ev Event) {
	answer := make(chan Decision, 1)
	w.box.post(mail{request: &requestMail{Request{Event: ev, Actor: "explorer"}, answer}})
	d := <-answer
	if ev == Stop && d.Outcome == "accepted" {
		w.stopAsked = true
	}
}

// signature is what tells two situations apart.
func (w *world) signature() string {
	s, th := w.Snapshot(), w.look()
	return fmt.Sprintf("%s intent=%s exit=%d effect=%s postponed=%v lock=%t serving=%t lanes=%t successors=%d prepared=%t generation=%d stop=%t",
		s.State, s.Intent, s.Exit, th.running, s.Postponed, th.lock, th.serving, th.lanes, th.successors, th.prepared, min(s.Generation, 2), w.stopAsked)
}

// invariants, each by its name.
var invariants = []struct {
	name string
	hold func(w *world) bool
}{
	{InvariantDeadline, func(w *world) bool {
		s := w.Snapshot()
		return s.State == Running || s.State == Stopped || !s.Deadline.IsZero() || w.look().running != ""
	}},
	{InvariantAlternate, func(w *world) bool { return !w.look().startedTwice }},
	{InvariantLock, func(w *world) bool {
		s := w.Snapshot().State
		th := w.look()
		return th.lock || s == Starting || s == Stopped || !th.serving
	}},
	{InvariantRelease, func(w *world) bool {
		return w.Snapshot().State != Stopped || !w.look().lock || w.Snapshot().Exit == ExitForced
	}},
	{InvariantSuccessor, func(w *world) bool { return w.look().successors <= 1 }},
	{InvariantLanes, func(w *world) bool {
		return !w.look().lanes || w.Snapshot().State == Running || w.prepares() || w.forced()
	}},
	{InvariantAdmission, func(w *world) bool { return w.Snapshot().Admission != Open || w.look().serving }},
	{InvariantStop, func(w *world) bool {
		s := w.Snapshot()
		return !w.stopAsked || s.State == ShuttingDown || s.State == Stopped
	}},
	{InvariantRefusal, func(w *world) bool { return !w.stopAsked || w.Snapshot().Admission == Refused }},
	{InvariantExit, func(w *world) bool {
		if w.Snapshot().State != Stopped {
			return true
		}
		code := ExitOK
		for _, h := range w.Hops(0) {
			switch h.Event { //nolint:exhaustive // the events that decide it
			case StartFailed:
				code = ExitFailed
			case ForceExit:
				code = ExitForced
			case ServerFailed:
				code = ExitServer
			}
		}
		return w.Snapshot().Exit == code
	}},
	{InvariantHops, func(w *world) bool {
		hops := w.Hops(0)
		for i := 1; i < len(hops); i++ {
			if hops[i].Seq != hops[i-1].Seq+1 || hops[i].From != hops[i-1].To {
				return false
			}
		}
		return true
	}},
	{InvariantPossible, func(w *world) bool { return w.Snapshot().Counters.Impossible == 0 }},
}

func (w *world) forced() bool {
	return w.Snapshot().State == Stopped && w.Snapshot().Exit == ExitForced
}

// end stops the owner wherever it is, so that the bubble can be left.
func (w *world) end() {
	if w.Snapshot().State == Stopped {
		return
	}
	w.box.post(mail{commit: &commitMail{w.visit, func() func() { return func() {} }, func() error {
		w.cancel(ErrStopped)
		w.done = true
		return nil
	}, Outcome{}, make(chan error, 1)}})
	<-w.exit
}

// alone lets time pass with nobody reporting anything, and says where that ends and when.
func (w *world) alone(table Table) (State, time.Duration) {
	began := time.Now()
	for range len(table.States) + 1 {
		s := w.Snapshot()
		if s.State == table.Final || s.Deadline.IsZero() {
			break
		}
		time.Sleep(time.Until(s.Deadline))
		synctest.Wait()
	}
	return w.Snapshot().State, time.Since(began)
}

// explore runs every interleaving of requests, outcomes, deadlines and late outcomes on the running
// machine, until no new situation appears, and returns what it saw and the first violation.
func explore(t *testing.T, table Table, depth int) (situations, hops int, violation string) {
	type path []int
	seen := make(map[string]bool)
	frontier := []path{{}}
	for d := 0; d <= depth && len(frontier) > 0; d++ {
		var next []path
		for _, p := range frontier {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, table)
				defer w.end()
				var names []string
				for _, i := range p {
					a := w.actions(table)[i]
					names = append(names, a.name)
					a.do(w)
					synctest.Wait()
					hops++
				}
				for _, inv := range invariants {
					if !inv.hold(w) {
						violation = fmt.Sprintf("%q is broken in %s after: %s", inv.name, w.signature(), strings.Join(names, ", "))
						return
					}
				}
				sig := w.signature()
				if seen[sig] {
					return
				}
				seen[sig] = true
				for i := range w.actions(table) {
					next = append(next, append(slices.Clone(p), i))
				}
				from := w.Snapshot()
				if at, took := w.alone(table); at != Running && at != Stopped {
					violation = fmt.Sprintf("left alone in %s it ends in %s", sig, at)
				} else if from.State == Draining && took != 35*time.Second {
					violation = fmt.Sprintf("force-exit came after %s instead of drain + shutdown in %s", took, sig)
				}
			})
			if violation != "" {
				return len(seen), hops, violation
			}
		}
		frontier = next
	}
	if len(frontier) > 0 {
		violation = "not finished within the depth"
	}
	return len(seen), hops, violation
}

func TestEveryInterleavingKeepsTheInvariants(t *testing.T) {
	situations, hops, violation := explore(t, Lifecycle(), 40)
	require.Empty(t, violation)
	names := []string{InvariantEnd} // explore itself
	for _, inv := range invariants {
		names = append(names, inv.name)
	}
	require.ElementsMatch(t, Invariants, names, "every invariant that is promised is checked")
	t.Logf("%d situations, %d steps; %d invariants held in each", situations, hops, len(Invariants))
	require.Greater(t, situations, 50)
}
