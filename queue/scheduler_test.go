package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// recorder is a runner that checks, while it runs, that each session has one turn under way, in order, and
// each lane no more than it may.
type recorder struct {
	limits map[string]int

	mu       sync.Mutex
	running  map[string]int // by session
	inLane   map[string]int
	ran      map[string][]string // inputs by session
	problems []string
}

func newRecorder(limits map[string]int) *recorder {
	return &recorder{
		limits: limits, running: map[string]int{}, inLane: map[string]int{}, ran: map[string][]string{},
	}
}

func (r *recorder) Run(_ context.Context, w Work) error {
	r.enter(w.Turn)
	defer r.leave(w.Turn)
	for range rand.IntN(3) {
		if err := w.Emit("."); err != nil {
			return err
		}
	}
	if rand.IntN(5) == 0 {
		return errors.New("no luck")
	}
	return nil
}

func (r *recorder) enter(t Turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[t.Session]++
	r.inLane[t.Lane]++
	r.ran[t.Session] = append(r.ran[t.Session], t.Input)
	if n := r.running[t.Session]; n > 1 {
		r.problems = append(r.problems, fmt.Sprintf("session %s runs %d at once", t.Session, n))
	}
	if n := r.inLane[t.Lane]; n > r.limits[t.Lane] {
		r.problems = append(r.problems, fmt.Sprintf("lane %s runs %d at once", t.Lane, n))
	}
}

func (r *recorder) leave(t Turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[t.Session]--
	r.inLane[t.Lane]--
}

func TestSessionsKeepTheirOrderAndLanesTheirLimits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lanes := map[string]int{
			"main": rapid.IntRange(1, 4).Draw(rt, "main"), "cron": rapid.IntRange(1, 2).Draw(rt, "cron"),
		}
		r := newRecorder(lanes)
		cfg := testConfig(t, r)
		cfg.Lanes = lanes
		q, err := Open(t.Context(), storePath(t), cfg)
		require.NoError(rt, err)
		defer closeQueue(t, q)

		var clients sync.WaitGroup
		sent := make([][]string, rapid.IntRange(1, 8).Draw(rt, "sessions"))
		var mu sync.Mutex
		var ids []string
		for i := range sent {
			n := rapid.IntRange(1, 20).Draw(rt, "turns")
			pauses := rapid.SliceOfN(rapid.IntRange(0, 9), n, n).Draw(rt, "pauses")
			clients.Go(func() {
				for j, p := range pauses {
					switch p {
					case 0:
						pause(q)
					case 1, 2:
						q.Resume()
					}
					input := fmt.Sprint(j)
					turn, _, err := q.Accept(t.Context(), NewTurn{
						Session: fmt.Sprint(i), Lane: []string{"main", "cron"}[p%2], Agent: "a", Input: input,
					})
					if err != nil {
						t.Error(err)
						return
					}
					sent[i] = append(sent[i], input)
					mu.Lock()
					ids = append(ids, turn.ID)
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		q.Resume()
		for _, id := range ids {
			wait(t, q, id)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		require.Empty(rt, r.problems)
		for i := range sent {
			require.Equal(rt, sent[i], r.ran[fmt.Sprint(i)], "session %d", i)
		}
		q.scheduler.look(func() {
			require.Empty(rt, q.scheduler.sessions, "an idle session costs no memory")
			require.Empty(rt, q.scheduler.places)
			require.Zero(rt, q.scheduler.carried)
			require.Zero(rt, q.scheduler.reserved)
		})
		q.hub.mu.Lock()
		defer q.hub.mu.Unlock()
		require.Empty(rt, q.hub.open)
		require.Empty(rt, q.hub.topics)
	})
}

func TestLaneIsFairAmongItsSessions(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	for _, session := range []string{"a", "a", "b", "c", "b"} {
		_, _, err := q.Accept(t.Context(), NewTurn{Session: session, Lane: "cron", Agent: "x", Input: "x"})
		require.NoError(t, err)
	}
	q.Resume()
	var order string
	for range 5 {
		turn := g.next(t)
		order += turn.Turn.Session
		turn.end <- nil
	}
	require.Equal(t, "abcab", order)
}

func TestTurnOfALaneThatIsGoneRunsOneAtATime(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	for i := range 3 {
		accept(t, q, fmt.Sprint(i), "x")
	}
	closeQueue(t, q)

	g := newGated()
	cfg := testConfig(t, g)
	cfg.Lanes = map[string]int{"other": 1}
	q = openQueue(t, path, cfg)
	q.Resume()
	for left := 2; left >= 0; left-- {
		turn := g.next(t)
		lanes := q.Lanes()
		require.Equal(t, "main", lanes[0].Name)
		require.Equal(t, []int{1, 1, left}, []int{lanes[0].Concurrency, lanes[0].Running, lanes[0].Queued})
		turn.end <- nil
	}
	require.NoError(t, q.Drain(t.Context(), ""))
	require.Len(t, q.Lanes(), 1, "a lane that nobody configured is forgotten when it is empty")
}

func TestPausedQueueStartsNothing(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	accept(t, q, "a", "x")
	first := g.next(t)
	pause(q)
	pause(q)
	second := accept(t, q, "b", "x")
	first.end <- nil
	require.NoError(t, q.Drain(t.Context(), ""))
	turn, err := q.Turn(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, Queued, turn.Status)
	require.Equal(t, Stats{Queued: 1, Epoch: 1}, q.Stats())
	q.Resume()
	g.next(t).end <- nil
	wait(t, q, second.ID)
}

func TestDrainWaitsForWhatRunsAndNothingElse(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	running := accept(t, q, "a", "runs")
	behind := accept(t, q, "a", "waits")
	work := g.next(t)
	require.Equal(t, []Turn{work.Turn}, q.Active())

	why := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, q.Drain(ctx, ""), why)

	drained := make(chan error, 1)
	go func() { drained <- q.Drain(t.Context(), "") }()
	work.end <- nil
	require.NoError(t, <-drained)
	require.Equal(t, Completed, wait(t, q, running.ID).Status)
	turn, err := q.Turn(t.Context(), behind.ID)
	require.NoError(t, err)
	require.Equal(t, Queued, turn.Status, "the queue stays paused")
}

func TestDrainDoesNotWaitForTheTurnThatAsked(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	asks := accept(t, q, "a", "asks for a restart")
	g.next(t)
	require.NoError(t, q.Drain(t.Context(), asks.ID))

	q.Resume()
	accept(t, q, "b", "x")
	other := g.next(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, q.Drain(ctx, asks.ID), context.DeadlineExceeded, "it waits for the other")
	other.end <- nil
	require.NoError(t, q.Drain(t.Context(), asks.ID))
}

func TestCancelOfAWaitingTurnIsDurableAndLetsTheNextOneOn(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	accept(t, q, "s", "1")
	second := accept(t, q, "s", "2")
	accept(t, q, "s", "3")
	first := g.next(t)

	turn, err := q.Cancel(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, Cancelled, turn.Status)
	stored, err := q.Turn(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, stored, turn)
	require.Equal(t, []string{"cancelled/0 cancelled on request"}, log(t, q, second.ID))
	require.Equal(t, turn, wait(t, q, second.ID))

	again, err := q.Cancel(t.Context(), second.ID)
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, turn, again)

	first.end <- nil
	third := g.next(t)
	require.Equal(t, "3", third.Turn.Input)
	third.end <- nil
}

func TestCancelOfARunningTurnEndsItsContextWithTheCause(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	turn := accept(t, q, "s", "1")
	work := g.next(t)
	require.NoError(t, work.Emit("half"))
	got, err := q.Cancel(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, Cancelled, got.Status)
	require.Empty(t, got.Output)
	require.ErrorIs(t, context.Cause(work.ctx), ErrCancelled)
	require.Error(t, work.Emit("late"))
	require.Equal(t, []string{"started/1", "delta/1 half", "cancelled/1 cancelled on request"}, log(t, q, turn.ID))
}

func TestCancelAndCompletionRaceToOneEnd(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	q.Resume()
	for i := range 200 {
		turn := accept(t, q, fmt.Sprint(i%7), "x")
		got, err := q.Cancel(t.Context(), turn.ID)
		stored := wait(t, q, turn.ID)
		require.Equal(t, stored, got)
		if got.Status == Cancelled {
			require.NoError(t, err)
		} else {
			require.Equal(t, Completed, got.Status)
			require.ErrorIs(t, err, ErrConflict)
		}
		finals := 0
		for e, err := range q.Follow(t.Context(), turn.ID, 0) {
			require.NoError(t, err)
			if e.Type.Final() {
				finals++
			}
		}
		require.Equal(t, 1, finals)
	}
}

func TestRetryGoesToTheHeadOfItsSession(t *testing.T) {
	g := newGated()
	path := storePath(t)
	cfg := testConfig(t, g)
	q := openQueue(t, path, cfg)
	q.Resume()
	first := accept(t, q, "s", "1")
	accept(t, q, "s", "2")
	third := accept(t, q, "s", "3")
	work := g.next(t)
	_, err := q.Retry(t.Context(), first.ID)
	require.ErrorIs(t, err, ErrConflict)
	work.end <- errors.New("no luck")
	failed := wait(t, q, first.ID)
	require.Equal(t, Failed, failed.Status)
	require.Equal(t, "no luck", failed.Error)

	second := g.next(t)
	again, err := q.Retry(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, Queued, again.Status)
	require.Zero(t, again.Attempt)
	second.end <- nil
	retried := g.next(t)
	require.Equal(t, "1", retried.Turn.Input)
	require.NoError(t, retried.Emit("done"))
	retried.end <- nil
	require.Equal(t, Completed, wait(t, q, first.ID).Status)
	require.Equal(t, []string{
		"started/1", "failed/1 no luck", "requeued/0", "started/1", "delta/1 done", "completed/1",
	}, log(t, q, first.ID))
	var followed int
	for _, err := range q.Follow(t.Context(), first.ID, 0) {
		require.NoError(t, err)
		followed++
	}
	require.Equal(t, 6, followed, "a final event that a retry undid does not end the log")
	g.next(t).end <- nil
	wait(t, q, third.ID)
	_, err = q.Retry(t.Context(), third.ID)
	require.ErrorIs(t, err, ErrConflict, "a completed turn is not retried")
}
