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
)

// TestEveryCellDoesWhatTheTableSays brings a turn of a real queue, on a real file, into each status, lets each occurrence
// happen to it, and compares what can be seen of the turn with the rule. What a queue cannot be brought to do is handed
// to its store directly.
func TestEveryCellDoesWhatTheTableSays(t *testing.T) {
	walks, faults := 0, 0
	l := turnLifecycle()
	empty := emptyStore(t)
	for _, r := range l.Rules {
		variants := []facts{r.When | ^r.Unless}
		if r.Status == Running { // a fact that the guard does not name makes no difference
			variants = append(variants, r.When)
		}
		for i, f := range variants {
			path := storePath(t)
			require.NoError(t, os.WriteFile(path, empty, 0o600))
			synctest.Test(t, func(t *testing.T) {
				o := observe(t, path, r, f)
				require.NoError(t, o.against(r), "%s, variant %d", r, i)
				for name, spoilt := range spoil(r) {
					faults++
					require.Error(t, o.against(spoilt), "%s passes with %s", r, name)
				}
			})
			walks++
		}
	}
	t.Logf("%d cells, %d rules, %d walks; %d planted faults found", len(l.index()), len(l.Rules), walks, faults)
}

// spoil returns the rule with each of its decisions changed.
func spoil(r rule) map[string]rule {
	spoilt := map[string]rule{}
	add := func(name string, change func(r *rule)) {
		other := r
		change(&other)
		spoilt[name] = other
	}
	other := func(s Status) Status {
		if s == Failed {
			return Cancelled
		}
		return Failed
	}
	add("another status", func(r *rule) { r.Kind, r.To = transition, other(cmpStatus(r)) })
	add("another event", func(r *rule) {
		if r.Event = EventRequeued; r.Status == Failed || r.Status == Cancelled {
			r.Event = EventStarted
		}
		if r.To == absent && r.Kind == transition {
			r.To = Queued
		}
	})
	add("another kind of refusal", func(r *rule) {
		if r.Err == nil {
			r.Kind, r.Err = refused, ErrConflict
		} else {
			r.Err = ErrFull
		}
	})
	if r.Kind == transition && r.To != absent {
		add("one run more or less", func(r *rule) { r.Run = !r.Run })
		add("another cost", func(r *rule) {
			if r.Attempt = map[attemptCost]attemptCost{"": givesBack, givesBack: "", countsAttempt: "", countsAnew: countsAttempt}[r.Attempt]; r.Status == absent {
				r.Attempt = countsAttempt
			}
		})
		add("another use of the slot", func(r *rule) {
			r.Slot = map[slotUse]slotUse{"": takesSlot, takesSlot: "", freesSlot: ""}[r.Slot]
		})
		add("another pause", func(r *rule) { r.Pause = !r.Pause })
	}
	return spoilt
}

func cmpStatus(r *rule) Status {
	if r.Kind == transition {
		return r.To
	}
	return r.Status
}

// seen is what can be seen of a turn from outside.
type seen struct {
	Status        Status
	Attempt, Runs int
	Events        []EventType
	Slots         int // of its lane that are taken
	Ahead         int // turns of its session before it; -1 when it does not wait
	Pause         bool
}

type observation struct {
	before, after seen
	err           error
}

// against compares what was observed with what the rule says.
func (o observation) against(r rule) error {
	want := o.before
	want.Events = slices.Clone(want.Events)
	if r.Event != "" {
		want.Events = append(want.Events, r.Event)
	}
	if r.Run {
		want.Runs++
	}
	switch r.Attempt {
	case countsAttempt:
		want.Attempt++
	case givesBack:
		want.Attempt--
	case countsAnew:
		want.Attempt = 0
	}
	switch r.Slot {
	case takesSlot:
		want.Slots++
	case freesSlot:
		want.Slots--
	}
	if r.Kind == transition {
		want.Status, want.Pause = r.To, r.Pause
		switch {
		case r.To == absent:
			want = seen{Ahead: -1}
		case r.To != Queued:
			want.Ahead = -1
		case r.Status == absent:
			want.Ahead = 1 // the other turn of the session
		default:
			want.Ahead = 0
		}
	}
	wantErr := r.Err
	if r.Kind == impossible {
		wantErr = errRefused
	}
	if !errors.Is(o.err, wantErr) || (o.err == nil) != (wantErr == nil) {
		return fmt.Errorf("the error is %v, want %v", o.err, wantErr)
	}
	if got, want := fmt.Sprintf("%+v", o.after), fmt.Sprintf("%+v", want); got != want {
		return fmt.Errorf("\nit was  %+v\nit is   %s\nit should be %s", o.before, got, want)
	}
	return nil
}

// emptyStore is the file of a store that has never had a turn.
func emptyStore(t *testing.T) []byte {
	path := storePath(t)
	s, err := openSQLite(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, s.close())
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	return file
}

// walkedTurn is one turn of a real queue, in a lane for one, with another turn of its session behind it.
type walkedTurn struct {
	t     *testing.T
	ctx   context.Context //nolint:containedctx // a step that does not end fails after a minute of virtual time
	path  string
	cfg   Config
	agent *gated
	q     *Queue
	store *faultyStore
	turn  Turn // as it was accepted
	seq   int64
	work  *gatedTurn    // its attempt, while the agent has it
	held  chan struct{} // its start is on disk, and goes on when this is closed; nil when it does not wait
}

// observe lets the occurrence of the rule happen to a turn in the rule's status, when the facts are these.
func observe(t *testing.T, path string, r rule, f facts) observation {
	l := &walkedTurn{t: t, path: path, agent: newGated()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.ctx = ctx
	l.cfg = testConfig(t, l.agent)
	l.cfg.Log = zerolog.Nop()
	l.cfg.OnInterrupt = FailTurn
	if f&mayRerun != 0 {
		l.cfg.OnInterrupt = RetryTurn
	}
	if f&attemptsLeft == 0 {
		l.cfg.MaxAttempts = 1
	}
	if r.Occurrence != onInterruption {
		f |= agentCalled
	}
	l.open()
	defer func() { closeQueue(t, l.q) }()
	l.bring(r, f)
	o := observation{before: l.look()}
	require.Equal(t, r.Status, o.before.Status)
	o.err = l.happen(r, f)
	synctest.Wait()
	o.after = l.look()
	return o
}

func (l *walkedTurn) open() { l.q, l.store = openFaulty(l.t, l.path, l.cfg) }

func (l *walkedTurn) send(n NewTurn) (Turn, bool, error) {
	n.Session, n.Lane = "s", "cron"
	if n.Agent == "" {
		n.Agent = "echo"
	}
	return l.q.Accept(l.ctx, n)
}

func (l *walkedTurn) look() seen {
	s := seen{Ahead: -1}
	turn, err := l.q.store.turn(l.ctx, l.turn.ID)
	if !errors.Is(err, ErrNotFound) {
		require.NoError(l.t, err)
		s.Status, s.Attempt, s.Runs, s.Pause = turn.Status, turn.Attempt, turn.Runs, turn.NotBefore != nil
	}
	events, err := l.q.store.events(l.ctx, l.turn.ID, 0, 1000)
	require.NoError(l.t, err)
	for i, e := range events {
		require.Equal(l.t, int64(i+1), e.Seq, "events are numbered without gaps")
		s.Events = append(s.Events, e.Type)
	}
	require.EqualValues(l.t, len(events), turn.LastEvent)
	if s.Status == absent {
		var left int
		require.NoError(l.t, l.store.Store.(*sqliteStore).reads.QueryRowContext(l.ctx, `SELECT
			(SELECT count(*) FROM events WHERE turn = ?) + (SELECT count(*) FROM keys WHERE turn = ?)`, l.seq, l.turn.ID).Scan(&left))
		require.Zero(l.t, left, "an absent turn has neither events nor keys")
	}
	for _, lane := range l.q.Lanes() {
		if lane.Name == "cron" {
			s.Slots = lane.Running
		}
	}
	if place, waits := l.q.Place(l.turn.ID); waits {
		s.Ahead = place.Ahead
	}
	return s
}

// bring makes a turn and brings it into the status, through whatever leads there. Nothing starts by itself afterwards.
func (l *walkedTurn) bring(r rule, f facts) {
	var err error
	l.turn, _, err = l.send(NewTurn{Input: "in", IdempotencyKey: "key", Mode: Collect})
	require.NoError(l.t, err)
	require.NoError(l.t, l.store.Store.(*sqliteStore).r.seq.QueryRowContext(l.ctx, l.turn.ID).Scan(&l.seq))
	if r.Occurrence != onJoin {
		_, _, err := l.send(NewTurn{Input: "behind"})
		require.NoError(l.t, err)
	}
	switch r.Status {
	case absent:
		l.cancel()
		_, err := l.q.Delete(l.ctx, l.turn.ID)
		require.NoError(l.t, err)
	case Queued:
	case Running:
		l.start(f)
	case Completed:
		l.start(f | agentCalled)
		l.work.end <- nil
	case Failed:
		l.start(f | agentCalled)
		l.work.end <- errTest
	case Cancelled:
		l.start(f | agentCalled)
		l.cancel()
	}
	synctest.Wait()
}

func (l *walkedTurn) cancel() {
	_, err := l.q.Cancel(l.ctx, l.turn.ID)
	require.NoError(l.t, err)
}

// start starts the turn: for the second time when it may run more than once.
func (l *walkedTurn) start(f facts) {
	l.q.Resume()
	if f&mayRerun != 0 && f&attemptsLeft != 0 && f&agentCalled != 0 {
		l.agent.next(l.t).end <- Temporary(errTest, 0)
	}
	if f&agentCalled != 0 {
		l.work = l.agent.next(l.t)
	} else {
		held := make(chan struct{})
		l.held = held
		wait := func([]operation) { <-held }
		l.store.written.Store(&wait)
		synctest.Wait()
	}
	pause(l.q)
}

// happen lets something happen to the turn.
func (l *walkedTurn) happen(r rule, f facts) error {
	switch r.Occurrence {
	case onAccept:
		input := "in"
		if r.Status != absent && f&sameRequest == 0 {
			input = "other"
		}
		turn, created, err := l.send(NewTurn{Input: input, IdempotencyKey: "key", Mode: Collect})
		require.Equal(l.t, r.Status == absent, created)
		if created {
			l.turn = turn
		}
		return err
	case onJoin:
		agent := "echo"
		if f&joinable == 0 {
			agent = "other"
		}
		turn, created, err := l.send(NewTurn{Input: "more", Mode: Collect, Agent: agent})
		require.Equal(l.t, r.Kind != internal, created)
		require.Equal(l.t, r.Kind != internal, turn.ID != l.turn.ID)
		return err
	case onStart:
		if r.Status != Queued {
			return l.write(&startTurn{seq: l.seq, at: now()})
		}
		l.q.Resume()
		l.work = l.agent.next(l.t)
		pause(l.q)
	case onText:
		if l.work == nil || r.Status != Running {
			return l.write(&appendText{seq: l.seq, number: l.number(), event: l.event(EventDelta)})
		}
		return l.work.Emit("text")
	case onComplete:
		return l.end(r, EventCompleted, nil)
	case onFailure:
		return l.end(r, EventFailed, errTest)
	case onTemporaryFailure:
		return l.end(r, EventInterrupted, Temporary(errTest, 0))
	case onUnwritable:
		l.store.failWith(func(ops []operation) error {
			for _, op := range ops {
				if end, ok := op.(*endTurn); ok && end.turn.Status == Completed {
					return &rejectedError{op, errTest}
				}
			}
			return nil
		})
		return l.end(r, EventCompleted, nil)
	case onInterruption:
		l.stop()
		l.open()
	case onCrash:
		crash(l.t, l.q, l.store)
		l.open()
	case onCancel:
		_, err := l.q.Cancel(l.ctx, l.turn.ID)
		return err
	case onSupersede:
		_, _, err := l.send(NewTurn{Input: "newer", Mode: Interrupt})
		return err
	case onRetry:
		_, err := l.q.Retry(l.ctx, l.turn.ID)
		return err
	case onDelete:
		_, err := l.q.Delete(l.ctx, l.turn.ID)
		return err
	case onPrune:
		before := now().Add(time.Second)
		if r.Status.Final() && f&beyondRetention == 0 {
			before = now().Add(-time.Second)
		}
		op := &pruneTurns{progress: progress{done: make(chan struct{})}, seqs: []int64{l.seq}, before: before}
		return l.q.do(l.ctx, op, func() { l.q.scheduler.write(op) })
	default:
		require.Fail(l.t, "no such occurrence", "%s", r.Occurrence)
	}
	return nil
}

// stop closes the queue, and lets a start that waits go on once the scheduler knows of it.
func (l *walkedTurn) stop() {
	closed := make(chan error, 1)
	go func() { closed <- l.q.Close(context.Background()) }()
	synctest.Wait()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
	require.NoError(l.t, <-closed)
}

// end lets the attempt end; where there is none the store is asked to write its end.
func (l *walkedTurn) end(r rule, typ EventType, err error) error {
	if r.Status == Running {
		l.work.end <- err
		return nil
	}
	turn := l.turn
	turn.Status, turn.LastEvent = Failed, l.event(typ).Seq
	return l.write(&endTurn{seq: l.seq, number: l.number(), turn: turn, events: []Event{l.event(typ)}})
}

// write hands an operation to the store that no queue would hand to it.
func (l *walkedTurn) write(op operation) error {
	require.NoError(l.t, l.store.Store.commit([]operation{op}))
	return op.status().err
}

func (l *walkedTurn) number() int { return l.look().Attempt }

func (l *walkedTurn) event(typ EventType) Event {
	s := l.look()
	return Event{Turn: l.turn.ID, Seq: int64(len(s.Events) + 1), Type: typ, Attempt: s.Attempt, At: now()}
}
