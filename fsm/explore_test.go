package fsm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/fsm/explore"
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

// Actions implements [explore.World].
func (w *world) Actions() (all []explore.Action) {
	table, s := w.cfg.Table, w.Snapshot()
	if s.State == table.Final {
		return nil
	}
	add := func(name string, do func()) { all = append(all, explore.Action{Name: name, Do: do}) }
	for _, e := range table.Events {
		if e.Class == ByRequest {
			add("ask "+string(e.Name), func() { w.request(e.Name) })
		}
	}
	for _, drain := range []time.Duration{0, time.Hour} {
		add(fmt.Sprintf("ask restart, and to wait %s", drain), func() { w.ask(Request{Event: Restart, Drain: &drain}) })
	}
	for _, o := range w.reports() {
		add(fmt.Sprintf("report %s %d", o.Event, o.Exit), func() { w.say <- o })
	}
	for i := range w.states[s.State].Deadlines {
		add(fmt.Sprintf("deadline %d", i), func() {
			at := s.Deadline
			if i > 0 {
				at = at.Add(seconds[ShutdownTimeout])
			}
			time.Sleep(time.Until(at)) // virtual
		})
	}
	add("server fails", func() { w.serverFails(s.Generation) })
	add("server of an earlier generation fails", func() { w.serverFails(s.Generation - 1) })
	add("late outcomes", func() {
		for _, e := range table.Events {
			w.box.post(mail{outcome: &outcomeMail{Outcome: Outcome{Event: e.Name}, visit: 1 << 40}})
		}
	})
	return all
}

// reports are the outcomes that the effect which has begun may report next.
func (w *world) reports() (all []Outcome) {
	th, s := w.look(), w.Snapshot()
	for _, spec := range w.cfg.Table.Effects {
		if spec.Name != th.running {
			continue
		}
		if th.reported < len(spec.Reports) { // an effect reports first, or fails
			return []Outcome{{Event: spec.Reports[th.reported]}, {Event: spec.Panic}}
		}
		for _, o := range spec.Outcomes {
			all = append(all, Outcome{Event: o})
			if row, _ := w.cfg.Table.row(s.State, o, s.Intent); len(row.Exits) > 0 {
				for _, code := range row.Exits[1:] {
					all = append(all, Outcome{Event: o, Exit: code})
				}
			}
		}
	}
	return all
}

func (w *world) serverFails(generation int) {
	w.box.post(mail{outcome: &outcomeMail{Outcome: Outcome{Event: ServerFailed}, generation: generation}})
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

// Signature implements [explore.World].
func (w *world) Signature() string {
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

// Broken implements [explore.World].
func (w *world) Broken() string {
	th := w.look()
	return Situation{
		Snapshot: w.Snapshot(), Hops: w.Hops(0), Stopping: w.stopAsked, Busy: th.running != "",
		Lock: th.lock, Open: th.serving, Serving: th.serving, Twice: th.startedTwice, Lanes: th.lanes, Successors: th.successors,
	}.Broken()
}

// End implements [explore.World]: it stops the owner wherever it is.
func (w *world) End() {
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

// Alone implements [explore.World].
func (w *world) Alone() (broken, how string) {
	from, wished, began := w.Snapshot(), w.wished(), time.Now()
	for range len(w.cfg.Table.States) + 1 {
		s := w.Snapshot()
		if s.State == w.cfg.Table.Final || s.Deadline.IsZero() {
			break
		}
		time.Sleep(time.Until(s.Deadline))
		synctest.Wait()
	}
	switch at, took := w.Snapshot().State, time.Since(began); {
	case at != Running && at != Stopped:
		return InvariantEnd, fmt.Sprintf("it ends in %s", at)
	case from.State == Draining && took != drainsAlone(from, wished):
		return InvariantEnd, fmt.Sprintf("the exit is forced after %s instead of drain + shutdown", took)
	}
	return "", ""
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
	r := explore.Run(t, func(t *testing.T) *world { return newWorld(t, Lifecycle()) }, 40)
	t.Log(r)
	require.Empty(t, r.Broken, r.String())
	require.Greater(t, r.Situations, 50)
}
