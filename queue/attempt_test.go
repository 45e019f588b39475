package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPanicFailsTheTurnOnly(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, runnerFunc(func(_ context.Context, w Work) error {
		if w.Turn.Input == "panic" {
			panic("oh no")
		}
		return nil
	})))
	q.Resume()
	first, second := accept(t, q, "s", "panic"), accept(t, q, "s", "calm")
	turn := wait(t, q, first.ID)
	require.Equal(t, Failed, turn.Status)
	require.Contains(t, turn.Error, "oh no")
	require.Equal(t, Completed, wait(t, q, second.ID).Status)
}

func TestErrorFailsTheTurnAndKeepsItsText(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, runnerFunc(func(_ context.Context, w Work) error {
		if err := w.Emit("half"); err != nil {
			return err
		}
		return errors.New("no luck")
	})))
	q.Resume()
	turn := wait(t, q, accept(t, q, "s", "x").ID)
	require.Equal(t, Failed, turn.Status)
	require.Equal(t, "no luck", turn.Error)
	require.Empty(t, turn.Output)
	require.Equal(t, []string{"started/1", "delta/1 half", "failed/1 no luck"}, log(t, q, turn.ID))
}

func TestOutputBeyondTheLimitFailsTheTurn(t *testing.T) {
	cfg := testConfig(t, runnerFunc(func(_ context.Context, w Work) error {
		if err := w.Emit(strings.Repeat("x", 100)); err != nil {
			return err
		}
		if w.Emit("y") == nil {
			return errors.New("the limit does not hold")
		}
		return nil // a runner that does not care
	}))
	cfg.MaxOutput = 100
	q := openQueue(t, storePath(t), cfg)
	q.Resume()
	turn := wait(t, q, accept(t, q, "s", "x").ID)
	require.Equal(t, Failed, turn.Status)
	require.Contains(t, turn.Error, "larger than 100 bytes")
}

func TestEmitWaitsForTheDiskAndTextIsGathered(t *testing.T) {
	path := storePath(t)
	piece := strings.Repeat("x", 1<<10)
	const pieces = 2048
	emitted := make(chan int, pieces)
	q, store := openFaulty(t, path, testConfig(t, runnerFunc(func(_ context.Context, w Work) error {
		for i := range pieces {
			if err := w.Emit(piece); err != nil {
				return err
			}
			emitted <- i
		}
		return nil
	})))
	defer closeQueue(t, q)
	held := make(chan struct{})
	store.failWith(func(ops []operation) error {
		if _, ok := ops[0].(*appendText); ok {
			<-held
		}
		return nil
	})
	q.Resume()
	turn := accept(t, q, "s", "x")
	for range maxBuffered/len(piece) - 1 {
		<-emitted
	}
	more := 0
	for quiet := false; !quiet; {
		select {
		case <-emitted:
			more++
		case <-time.After(40 * time.Millisecond):
			quiet = true
		}
		require.LessOrEqual(t, more, 1, "only the piece that fills the buffer may still return: the rest waits for the disk")
	}
	close(held)
	final := wait(t, q, turn.ID)
	require.Equal(t, Completed, final.Status)
	require.Len(t, final.Output, pieces*len(piece))

	var text strings.Builder
	events := 0
	for e, err := range q.Follow(t.Context(), turn.ID, 0) {
		require.NoError(t, err)
		events++
		if e.Type == EventDelta {
			text.WriteString(e.Text)
		}
	}
	require.Equal(t, final.Output, text.String())
	require.Less(t, events, pieces/4, "text that gathers is one delta")
}

func TestHistoryIsWhatCompletedBefore(t *testing.T) {
	got := make(chan []Turn, 10)
	q := openQueue(t, storePath(t), testConfig(t, runnerFunc(func(ctx context.Context, w Work) error {
		history, err := w.History(ctx, 2)
		if err != nil {
			return err
		}
		got <- history
		if w.Turn.Input == "fails" {
			return errors.New("no luck")
		}
		return w.Emit("re: " + w.Turn.Input)
	})))
	for _, input := range []string{"1", "2", "fails", "3", "4"} {
		accept(t, q, "s", input)
	}
	accept(t, q, "other", "x")
	q.Resume()
	histories := map[int]int{}
	var last []Turn
	for range 6 {
		h := <-got
		histories[len(h)]++
		if len(h) == 2 {
			last = h
		}
	}
	require.Equal(t, map[int]int{0: 2, 1: 1, 2: 3}, histories)
	require.Equal(t, []string{"re: 2", "re: 3"}, []string{last[0].Output, last[1].Output})
}

func TestInterruptedAttemptIsGivenBack(t *testing.T) {
	path := storePath(t)
	g := newGated()
	q := openQueue(t, path, testConfig(t, g))
	q.Resume()
	turn := accept(t, q, "s", "1")
	accept(t, q, "s", "2")
	work := g.next(t)
	require.NoError(t, work.Emit("half"))
	closeQueue(t, q)
	require.ErrorIs(t, context.Cause(work.ctx), ErrInterrupted)

	q = openQueue(t, path, testConfig(t, g))
	stored, err := q.Turn(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, Queued, stored.Status)
	require.Zero(t, stored.Attempt)
	require.Equal(t, 1, stored.Runs, "a run is not given back")
	q.Resume()
	work = g.next(t)
	require.Equal(t, "1", work.Turn.Input, "it is at the head of its session")
	require.Equal(t, 1, work.Turn.Attempt)
	require.Equal(t, 2, work.Turn.Runs)
	require.NoError(t, work.Emit("whole"))
	work.end <- nil
	require.Equal(t, "whole", wait(t, q, turn.ID).Output)
	lines := log(t, q, turn.ID)
	require.Equal(t, []string{"started/1", "delta/1 whole", "completed/1"}, lines[len(lines)-3:])
	require.Contains(t, lines, "interrupted/1 interrupted by the gateway")
}

func TestInterruptFailsATurnThatAsksForIt(t *testing.T) {
	path := storePath(t)
	g := newGated()
	q := openQueue(t, path, testConfig(t, g))
	q.Resume()
	turn, _, err := q.Accept(t.Context(), NewTurn{
		Session: "s", Lane: "main", Agent: "a", Input: "x", OnInterrupt: FailTurn,
	})
	require.NoError(t, err)
	g.next(t)
	closeQueue(t, q)
	q = openQueue(t, path, testConfig(t, g))
	got := wait(t, q, turn.ID)
	require.Equal(t, Failed, got.Status)
	require.Contains(t, got.Error, "interrupted")
}

func TestRunThatEndsWellInSpiteOfTheInterruptIsCompleted(t *testing.T) {
	path := storePath(t)
	started := make(chan struct{})
	cfg := testConfig(t, runnerFunc(func(ctx context.Context, w Work) error {
		close(started)
		<-ctx.Done()
		return w.Emit("the last word")
	}))
	q := openQueue(t, path, cfg)
	q.Resume()
	turn := accept(t, q, "s", "x")
	<-started
	closeQueue(t, q)
	q = openQueue(t, path, cfg)
	got := wait(t, q, turn.ID)
	require.Equal(t, Completed, got.Status)
	require.Equal(t, "the last word", got.Output)
}

// stubborn ignores the end of its context until it is released.
type stubborn struct {
	started, release, returned chan struct{}
}

func newStubborn() *stubborn {
	return &stubborn{
		started: make(chan struct{}, 10), release: make(chan struct{}), returned: make(chan struct{}, 10),
	}
}

func (s *stubborn) Run(_ context.Context, w Work) error {
	if w.Turn.Input != "stubborn" {
		return nil
	}
	s.started <- struct{}{}
	<-s.release
	_ = w.Emit("too late")
	s.returned <- struct{}{}
	return nil
}

func TestStuckAttemptDoesNotHoldClose(t *testing.T) {
	path := storePath(t)
	s := newStubborn()
	cfg := testConfig(t, s)
	cfg.CancelGrace = 20 * time.Millisecond
	q := openQueue(t, path, cfg)
	q.Resume()
	turn := accept(t, q, "s", "stubborn")
	<-s.started
	closeQueue(t, q)
	require.Equal(t, 1, q.Stats().Stuck)
	require.Equal(t, 1, q.Lanes()[1].Stuck)

	q = openQueue(t, path, cfg)
	stored, err := q.Turn(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, Queued, stored.Status)
	require.Zero(t, stored.Attempt)
	before := log(t, q, turn.ID)
	close(s.release)
	<-s.returned
	require.Equal(t, before, log(t, q, turn.ID), "what it does later changes nothing")
}

func TestCloseAbandonsWhenItsContextEnds(t *testing.T) {
	s := newStubborn()
	cfg := testConfig(t, s)
	cfg.CancelGrace = time.Hour
	q := openQueue(t, storePath(t), cfg)
	q.Resume()
	accept(t, q, "s", "stubborn")
	<-s.started
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.NoError(t, q.Close(ctx))
	require.Equal(t, 1, q.Stats().Stuck)
	close(s.release)
	<-s.returned
}

// polite waits for its end, and tells how long it had for it.
type polite struct{ started, left chan time.Duration }

func (p polite) Run(ctx context.Context, _ Work) error {
	before, known := Grace(ctx)
	if known {
		return errors.New("nothing has ended it")
	}
	p.started <- before
	<-ctx.Done()
	left, _ := Grace(ctx)
	p.left <- left
	return context.Cause(ctx)
}

func TestAnAttemptKnowsHowLongItHasToEnd(t *testing.T) {
	p := polite{make(chan time.Duration, 1), make(chan time.Duration, 1)}
	cfg := testConfig(t, p)
	cfg.CancelGrace, cfg.CloseReserve = time.Hour, 10*time.Minute
	q := openQueue(t, storePath(t), cfg)
	q.Resume()
	cancelled := accept(t, q, "s", "cancelled")
	<-p.started
	got, err := q.Cancel(t.Context(), cancelled.ID)
	require.NoError(t, err)
	require.Equal(t, Cancelled, got.Status)
	require.InDelta(t, time.Hour, <-p.left, float64(10*time.Minute))

	accept(t, q, "s", "interrupted")
	<-p.started
	ctx, end := context.WithTimeout(t.Context(), 24*time.Hour)
	defer end()
	require.NoError(t, q.Close(ctx))
	require.InDelta(t, 24*time.Hour-10*time.Minute, <-p.left, float64(5*time.Minute))
}

// deaf reports the end of its context, and ignores it.
type deaf struct {
	started, ended chan struct{}
	release        chan struct{}
}

func (d deaf) Run(ctx context.Context, _ Work) error {
	close(d.started)
	<-ctx.Done()
	close(d.ended)
	<-d.release
	return nil
}

func TestALaterEndOnlyShortensTheTimeToEnd(t *testing.T) {
	d := deaf{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	defer close(d.release)
	cfg := testConfig(t, d)
	cfg.CancelGrace = 300 * time.Millisecond
	q := openQueue(t, storePath(t), cfg)
	q.Resume()
	turn := accept(t, q, "s", "whatever")
	<-d.started
	cancelled := make(chan error, 1)
	go func() {
		_, err := q.Cancel(t.Context(), turn.ID)
		cancelled <- err
	}()
	<-d.ended
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	require.NoError(t, q.Close(ctx), "it is over long before the time of the close")
	require.NoError(t, <-cancelled)
	require.Equal(t, 1, q.Stats().Stuck)
}

func TestCancelledTurnThatIgnoresItFreesItsLane(t *testing.T) {
	s := newStubborn()
	cfg := testConfig(t, s)
	cfg.CancelGrace = 20 * time.Millisecond
	q := openQueue(t, storePath(t), cfg)
	q.Resume()
	turn := accept(t, q, "s", "stubborn")
	<-s.started
	got, err := q.Cancel(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, Cancelled, got.Status)
	require.Equal(t, 1, q.Stats().Stuck)
	require.Zero(t, q.Stats().Running)
	require.Equal(t, Completed, wait(t, q, accept(t, q, "s", "next").ID).Status)
	close(s.release)
	<-s.returned
	require.Equal(t, []string{"started/1", "cancelled/1 cancelled on request"}, log(t, q, turn.ID))
}
