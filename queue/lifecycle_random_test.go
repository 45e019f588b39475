package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// lifeStep is one thing that happens to a queue. Number chooses the turn or the session.
type lifeStep struct {
	What   string
	Number int
	Mode   Mode
	Fail   bool // on_interrupt: fail
}

func stepOf(t *rapid.T) lifeStep {
	return lifeStep{
		What: rapid.SampledFrom([]string{
			"accept", "accept", "accept", "accept", "repeat", "text", "complete", "complete", "fail", "fail for now",
			"fail for now", "cancel", "retry", "retry", "delete", "prune", "pause", "resume", "resume", "time", "stop", "crash",
		}).Draw(t, "what"),
		Number: rapid.IntRange(0, 11).Draw(t, "number"),
		Mode:   rapid.SampledFrom([]Mode{Followup, Followup, Collect, Interrupt}).Draw(t, "mode"),
		Fail:   rapid.IntRange(0, 3).Draw(t, "fail") == 0,
	}
}

var scripts = rapid.SliceOfN(rapid.Custom(stepOf), 1, 40)

// TestRandomLivesAreThoseOfTheTable lets random things happen to a real queue on a real file. What each does to a turn
// is taken from the table; that the right turns start, and no others, is checked after each.
func TestRandomLivesAreThoseOfTheTable(t *testing.T) {
	empty := emptyStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		script := scripts.Draw(rt, "script")
		if err := play(t, empty, turnLifecycle().index(), script); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestRandomLivesFindAChangedCell plays random scripts against tables of which one cell is wrong.
func TestRandomLivesFindAChangedCell(t *testing.T) {
	empty, long := emptyStore(t), rapid.SliceOfN(rapid.Custom(stepOf), 60, 60)
	for name, c := range map[string]struct {
		status Status
		on     occurrence
		spoil  func(r *rule)
	}{
		"a stop costs an attempt":          {Running, onInterruption, func(r *rule) { r.Attempt = "" }},
		"a crash costs no attempt":         {Running, onCrash, func(r *rule) { r.Attempt = givesBack }},
		"a failure for now is for good":    {Running, onTemporaryFailure, func(r *rule) { r.To, r.Event, r.Pause = Failed, EventFailed, false }},
		"a retry goes on counting":         {Failed, onRetry, func(r *rule) { r.Attempt = "" }},
		"a start is no run":                {Queued, onStart, func(r *rule) { r.Run = false }},
		"a cancelled turn keeps its slot":  {Running, onCancel, func(r *rule) { r.Slot = "" }},
		"a completed turn can run again":   {Completed, onRetry, func(r *rule) { *r = rule{Kind: transition, To: Queued, Event: EventRequeued} }},
		"a turn that waits can be deleted": {Queued, onDelete, func(r *rule) { *r = rule{Kind: transition, To: absent} }},
	} {
		t.Run(name, func(t *testing.T) {
			l := turnLifecycle()
			for i := range l.Rules {
				if r := &l.Rules[i]; r.Status == c.status && r.Occurrence == c.on {
					c.spoil(r)
					r.Status, r.Occurrence = c.status, c.on
				}
			}
			for i := range 100 {
				if err := play(t, empty, l.index(), long.Example(i)); err != nil {
					t.Logf("script %d: %v", i, err)
					return
				}
			}
			require.Fail(t, "no script has found it")
		})
	}
}

// lives is a real queue, and what the table says of its turns.
type lives struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // a step that does not end fails after a day of virtual time
	rules  ruleIndex
	path   string
	cfg    Config
	agent  *gated
	q      *Queue
	store  *faultyStore
	paused bool
	slots  int
	sent   int          // messages
	turns  []*modelLife // in the order of acceptance
}

// modelLife is a turn as the table has it.
type modelLife struct {
	accepted      NewTurn
	id            string
	status        Status
	attempt, runs int
	events        []EventType
	work          *gatedTurn // nil unless it runs
	pauses        time.Time  // since when it waits for its next attempt; zero when it does not
}

// play returns how the queue differs from what the table says.
func play(t *testing.T, empty []byte, rules ruleIndex, script []lifeStep) (err error) {
	w := &lives{t: t, rules: rules, path: storePath(t)}
	require.NoError(t, os.WriteFile(w.path, empty, 0o600))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		w.t, w.ctx, w.agent = t, ctx, newGated()
		w.cfg = testConfig(t, w.agent)
		w.cfg.Log = zerolog.Nop()
		w.cfg.Lanes, w.cfg.MaxAttempts = map[string]int{"main": 2}, 2
		w.open()
		defer func() { closeQueue(t, w.q) }()
		for i, s := range script {
			if err = w.take(s); err == nil {
				synctest.Wait()
				err = errors.Join(w.starts(), w.compare())
			}
			if err != nil {
				err = fmt.Errorf("step %d, %+v: %w", i+1, s, err)
				break
			}
		}
	})
	return err
}

func (w *lives) open() {
	w.q, w.store = openFaulty(w.t, w.path, w.cfg)
	w.slots = 0
	w.setPaused(w.paused)
}

func (w *lives) setPaused(paused bool) {
	w.paused = paused
	if paused {
		pause(w.q)
	} else {
		w.q.Resume()
	}
}

// happen applies the table to a turn and returns the error that whoever asked has to get.
func (w *lives) happen(m *modelLife, on occurrence, f facts) error {
	if m.accepted.OnInterrupt != FailTurn {
		f |= mayRerun
	}
	if m.attempt < w.cfg.MaxAttempts {
		f |= attemptsLeft
	}
	r := w.rules.of(m.status, on, f)
	switch r.Kind {
	case refused:
		return r.Err
	case impossible:
		return fmt.Errorf("%s is impossible", r)
	case unaffected:
		return nil
	case transition:
		if on == onStart && !m.pauses.IsZero() && time.Since(m.pauses) < w.cfg.RetryBackoff/2 {
			return fmt.Errorf("it starts although it has to wait")
		}
		m.pauses = time.Time{}
		if r.Pause && (on != onCrash || m.attempt > 1) {
			m.pauses = time.Now()
		}
		turn := Turn{Attempt: m.attempt, Runs: m.runs}
		r.apply(&turn)
		m.status, m.attempt, m.runs = turn.Status, turn.Attempt, turn.Runs
	case internal:
	}
	if r.Event != "" {
		m.events = append(m.events, r.Event)
	}
	switch r.Slot {
	case takesSlot:
		w.slots++
	case freesSlot:
		w.slots--
	}
	if m.status != Running {
		m.work = nil
	}
	return nil
}

// all lets the same happen to every turn of a session, or of all.
func (w *lives) all(on occurrence, f facts, which func(*modelLife) bool) error {
	for _, m := range w.turns {
		if which(m) {
			if err := w.happen(m, on, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func everyTurn(*modelLife) bool { return true }

// same reports an error that is not the one wanted.
func same(got, want error) error {
	if errors.Is(got, want) && (got == nil) == (want == nil) {
		return nil
	}
	return fmt.Errorf("the error is %v, want %v", got, want)
}

func (w *lives) take(s lifeStep) error {
	ctx := w.ctx
	switch s.What {
	case "accept":
		return w.accept(s)
	case "pause", "resume":
		w.setPaused(s.What == "pause")
		return nil
	case "time":
		time.Sleep(2 * time.Minute)
		return nil
	case "prune":
		_, err := w.q.prune(ctx, now().Add(time.Second))
		return errors.Join(err, w.all(onPrune, beyondRetention, everyTurn))
	case "stop":
		err := w.q.Close(context.Background())
		err = errors.Join(err, w.all(onInterruption, agentCalled, everyTurn))
		return errors.Join(err, w.reopen())
	case "crash":
		crash(w.t, w.q, w.store)
		return errors.Join(w.all(onCrash, 0, everyTurn), w.reopen())
	}
	if len(w.turns) == 0 {
		return nil
	}
	m := w.turns[s.Number%len(w.turns)]
	switch s.What {
	case "cancel":
		want := w.happen(m, onCancel, 0)
		_, err := w.q.Cancel(ctx, m.id)
		return same(err, want)
	case "retry":
		want := w.happen(m, onRetry, 0)
		_, err := w.q.Retry(ctx, m.id)
		return same(err, want)
	case "delete":
		want := w.happen(m, onDelete, 0)
		_, err := w.q.Delete(ctx, m.id)
		return same(err, want)
	case "repeat":
		if m.status == absent { // makes a new one, like accept
			return nil
		}
		n := m.accepted
		f := sameRequest
		if s.Fail {
			n.Input, f = "other", 0
		}
		want := w.happen(m, onAccept, f)
		got, created, err := w.q.Accept(ctx, n)
		if created || err == nil && got.ID != m.id {
			return fmt.Errorf("a repeat made a turn")
		}
		return same(err, want)
	}
	return w.attempt(s)
}

// attempt lets the agent of a turn that runs do something.
func (w *lives) attempt(s lifeStep) error {
	var running []*modelLife
	for _, m := range w.turns {
		if m.work != nil {
			running = append(running, m)
		}
	}
	if len(running) == 0 {
		return nil
	}
	m := running[s.Number%len(running)]
	work := m.work
	switch s.What {
	case "text":
		return errors.Join(work.Emit("text"), w.happen(m, onText, 0))
	case "complete":
		work.end <- nil
		return w.happen(m, onComplete, 0)
	case "fail":
		work.end <- errTest
		return w.happen(m, onFailure, 0)
	case "fail for now":
		work.end <- Temporary(errTest, 0)
		return w.happen(m, onTemporaryFailure, 0)
	}
	return fmt.Errorf("nobody knows how to %s", s.What)
}

func (w *lives) accept(s lifeStep) error {
	n := NewTurn{
		Session: []string{"a", "b", "c"}[s.Number%3], Lane: "main", Agent: "agent", Input: "in", Mode: s.Mode,
		OnInterrupt: RetryTurn, IdempotencyKey: fmt.Sprint("key ", w.sent),
	}
	w.sent++
	if s.Fail {
		n.OnInterrupt = FailTurn
	}
	before := func(m *modelLife) bool { return m.accepted.Session == n.Session && m.status != absent }
	var last *modelLife
	for _, m := range w.turns {
		if before(m) {
			last = m
		}
	}
	t, created, err := w.q.Accept(w.ctx, n)
	if err != nil {
		return err
	}
	joins := n.Mode == Collect && last != nil && last.status == Queued && last.runs == 0 &&
		last.accepted.Mode == Collect && last.accepted.OnInterrupt == n.OnInterrupt
	if joins == created {
		return fmt.Errorf("it joined: %v, want %v", !created, joins)
	}
	if joins {
		return w.happen(last, onJoin, joinable)
	}
	m := &modelLife{accepted: n, id: t.ID}
	err = w.happen(m, onAccept, sameRequest)
	if n.Mode == Interrupt {
		err = errors.Join(err, w.all(onSupersede, 0, before))
	}
	w.turns = append(w.turns, m)
	return err
}

// reopen opens the queue for the next generation, in which an interrupt still counts.
func (w *lives) reopen() error {
	w.open()
	for i, m := range w.turns {
		if m.status == Queued && m.accepted.Mode == Interrupt {
			for _, before := range w.turns[:i] {
				if before.accepted.Session == m.accepted.Session {
					if err := w.happen(before, onSupersede, 0); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// starts takes in what has started, and checks that it was its turn.
func (w *lives) starts() error {
	for len(w.agent.turns) > 0 {
		work := <-w.agent.turns
		if work.ctx.Err() != nil {
			return fmt.Errorf("turn %s started and was ended at once", work.Turn.ID)
		}
		at := slices.IndexFunc(w.turns, func(m *modelLife) bool { return m.id == work.Turn.ID })
		m := w.turns[at]
		for _, before := range w.turns[:at] {
			if before.accepted.Session == m.accepted.Session && !before.status.Final() && before.status != absent {
				return fmt.Errorf("turn %d started before an older one of its session", at)
			}
		}
		if err := w.happen(m, onStart, 0); err != nil {
			return err
		}
		m.work = work
	}
	return nil
}

// compare reads everything, and checks that what may run runs.
func (w *lives) compare() error {
	running, heads := map[string]int{}, map[string]bool{}
	for _, m := range w.turns {
		if m.status == Running {
			running[m.accepted.Session]++
		}
	}
	ready := 0
	for i, m := range w.turns {
		got, err := w.q.store.turn(w.ctx, m.id)
		if m.status == absent && errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("turn %d: %w", i, err)
		}
		events, err := w.q.store.events(w.ctx, m.id, 0, 1000)
		if err != nil {
			return err
		}
		var types []EventType
		for _, e := range events {
			types = append(types, e.Type)
		}
		want := fmt.Sprint(m.status, m.attempt, m.runs, m.events)
		if got := fmt.Sprint(got.Status, got.Attempt, got.Runs, types); got != want {
			return fmt.Errorf("turn %d is %s, want %s", i, got, want)
		}
		if got.NotBefore != nil && got.Status != Queued {
			return fmt.Errorf("turn %d is %s and waits for its next start", i, got.Status)
		}
		if session := m.accepted.Session; m.status == Queued && !heads[session] {
			heads[session] = true
			if running[session] == 0 && (got.NotBefore == nil || !got.NotBefore.After(time.Now())) {
				ready++
			}
		}
	}
	for session, n := range running {
		if n > 1 {
			return fmt.Errorf("session %s runs %d turns", session, n)
		}
	}
	lane := w.q.Lanes()[0]
	if lane.Running != w.slots || lane.Running > lane.Concurrency {
		return fmt.Errorf("%d slots of the lane are taken, want %d", lane.Running, w.slots)
	}
	if !w.paused && lane.Running < lane.Concurrency && ready > 0 {
		return fmt.Errorf("%d sessions are ready, the lane has room, and nothing starts", ready)
	}
	return nil
}
