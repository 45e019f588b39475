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
	exit      chan ExitCode
	say       chan Outcome
	stopAsked bool
	drain     *time.Duration // what a restart asked the drain to wait, instead of the setting
	drainFrom time.Time      // since when; zero for since it began

	mu sync.Mutex // the last effect of a forced exit does not wait for the one before it
	things
}

// things are what the effects change.
type things struct {
	lock, serving, lanes bool
	successors           int
	reported             int    // how many of its reports the running effect has made
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
	w := &world{exit: make(chan ExitCode, 1), say: make(chan Outcome)}
	effects := make(map[Effect]EffectFunc)
	for _, spec := range table.Effects {
		effects[spec.Name] = func(ctx context.Context, e Entry) Outcome { return w.perform(ctx, e, spec) }
	}
	m, err := New(Config{Table: table, Effects: effects, Timeouts: func() Timeouts { return seconds }, BootID: "b", Log: zerolog.Nop()})
	require.NoError(t, err)
	w.Machine = m
	go func() { w.exit <- m.Run() }()
	synctest.Wait()
	return w
}

// perform changes the world as the real effects do.
func (w *world) perform(ctx context.Context, e Entry, spec EffectSpec) Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running, w.reported = spec.Name, 0
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
	case EffectClose:
		w.lanes = false
		before = func() { w.serving = false }
	case EffectRelease:
		w.lock, w.serving, w.successors = false, false, 0
	}
	if len(spec.Outcomes) > 0 {
		w.mu.Unlock()
		out = w.report(ctx, e, spec)
		w.mu.Lock()
		if out.Event == Started || out.Event == Closed || (ctx.Err() != nil && spec.Name == EffectClose) {
			before()
		}
	}
	return out
}

// report waits for the explorer: first for what the effect reports on its way, then for how it ends.
func (w *world) report(ctx context.Context, e Entry, spec EffectSpec) (out Outcome) {
	for {
		select {
		case out = <-w.say:
		case <-ctx.Done():
			return Outcome{}
		}
		if !slices.Contains(spec.Reports, out.Event) {
			return out
		}
		if e.Report(ctx, out) != nil {
			continue
		}
		w.mu.Lock()
		w.reported++
		w.lanes = w.lanes && out.Event != Prepared // they are stopped once that is recorded
		w.mu.Unlock()
	}
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
	for _, drain := range []time.Duration{0, time.Hour} {
		all = append(all, action{fmt.Sprintf("ask restart, and to wait %s", drain), func(w *world) { w.ask(Request{Event: Restart, Drain: &drain}) }})
	}
	for _, spec := range table.Effects {
		th := w.look()
		if spec.Name != th.running {
			continue
		}
		say := func(o Outcome) {
			all = append(all, action{fmt.Sprintf("report %s %d", o.Event, o.Exit), func(w *world) { w.say <- o }})
		}
		if th.reported < len(spec.Reports) { // an effect reports first, or fails
			say(Outcome{Event: spec.Reports[th.reported]})
			say(Outcome{Event: spec.Panic})
			continue
		}
		for _, o := range spec.Outcomes {
			say(Outcome{Event: o})
			if row, _ := table.row(w.Snapshot().State, o, w.Snapshot().Intent); len(row.Exits) > 0 {
				for _, code := range row.Exits[1:] {
					say(Outcome{Event: o, Exit: code})
				}
			}
		}
	}
	for i := range w.states[w.Snapshot().State].Deadlines {
		all = append(all, action{fmt.Sprintf("deadline %d", i), func(w *world) {
			first, shutdown := w.Snapshot().Deadline, time.Duration(0)
			if i > 0 {
				shutdown = seconds[ShutdownTimeout]
			}
			time.Sleep(time.Until(first.Add(shutdown))) // virtual
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

func (w *world) request(ev Event) Verdict { return w.ask(Request{Event: ev}) }

func (w *world) ask(r Request) Verdict {
	answer := make(chan Decision, 1)
	r.Actor = "explorer"
	w.box.post(mail{request: &requestMail{r, answer}})
	d := <-answer
	switch {
	case r.Event == Stop && d.Outcome == VerdictAccepted:
		w.stopAsked = true
	case r.Event == Restart && (d.Outcome == VerdictAccepted || d.Outcome == VerdictPostponed):
		w.drain, w.drainFrom = r.Drain, time.Time{}
	case r.Event == Restart && r.Drain != nil && d.State == Draining:
		w.drain, w.drainFrom = r.Drain, time.Now()
	}
	return d.Outcome
}

// signature is what tells two situations apart.
func (w *world) signature() string {
	s, th := w.Snapshot(), w.look()
	left := "never"
	if !s.Deadline.IsZero() {
		left = time.Until(s.Deadline).String()
	}
	return fmt.Sprintf("%s intent=%s exit=%d ready=%t deadline=%s wished=%s effect=%s reported=%d postponed=%v lock=%t serving=%t lanes=%t successors=%d generation=%d stop=%t",
		s.State, s.Intent, s.Exit, s.Ready, left, w.wished(), th.running, th.reported, s.Postponed, th.lock, th.serving, th.lanes, th.successors, min(s.Generation, 2), w.stopAsked)
}

// wished is how long the drain is to wait from now on, where a restart asked for that; negative for the setting.
func (w *world) wished() time.Duration {
	s := w.Snapshot()
	if s.State != Draining || w.drain == nil {
		return -1
	}
	from := w.drainFrom
	if from.IsZero() {
		from = s.Since
	}
	return time.Until(from.Add(*w.drain))
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
	{InvariantLanes, func(w *world) bool { return !w.look().lanes || w.Snapshot().Ready || w.forced() }},
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
			case HandedBack:
				code = ExitSupervisor
			}
		}
		got := w.Snapshot().Exit
		return got == code || (code == ExitFailed && got == ExitConfig)
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
	for _, e := range w.cfg.Table.Events {
		if row, _ := w.cfg.Table.row(w.Snapshot().State, e.Name, w.Snapshot().Intent); row.Kind == Transition { // what it leads to is not reached
			w.box.post(mail{commit: &commitMail{w.visit, func() func() { return func() {} }, func(Hop) error {
				w.cancel(ErrStopped)
				w.done = true
				return ErrStopped
			}, Outcome{Event: e.Name}, make(chan error, 1)}})
			break
		}
	}
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
				from, wished := w.Snapshot(), w.wished()
				if at, took := w.alone(table); at != Running && at != Stopped {
					violation = fmt.Sprintf("left alone in %s it ends in %s", sig, at)
				} else if from.State == Draining && took != drainsAlone(from, wished) {
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

// drainsAlone is how long a drain lasts in which nothing reports, and the close after it.
func drainsAlone(from Snapshot, wished time.Duration) time.Duration {
	drain := seconds[DrainTimeout]
	if wished >= 0 && (wished > drain || !from.Ready) {
		drain = wished
	}
	return drain + seconds[ShutdownTimeout]
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
