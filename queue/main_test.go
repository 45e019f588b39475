package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashChild); path != "" {
		runCrashChild(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// runnerFunc is a Runner made of a function.
type runnerFunc func(ctx context.Context, w Work) error

func (f runnerFunc) Run(ctx context.Context, w Work) error { return f(ctx, w) }

// echo answers with its input.
var echo = runnerFunc(func(_ context.Context, w Work) error { return w.Emit(w.Turn.Input) })

// gated is a runner whose turns wait for the test. Each hands itself over when it runs.
type gated struct{ turns chan *gatedTurn }

type gatedTurn struct {
	Work
	ctx context.Context
	end chan error
}

func newGated() *gated { return &gated{turns: make(chan *gatedTurn, 1000)} }

// Run ends when the test says so, or with its context.
func (g *gated) Run(ctx context.Context, w Work) error {
	t := &gatedTurn{Work: w, ctx: ctx, end: make(chan error, 1)}
	g.turns <- t
	select {
	case err := <-t.end:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// next is the next turn that runs.
func (g *gated) next(t testing.TB) *gatedTurn {
	t.Helper()
	select {
	case turn := <-g.turns:
		return turn
	case <-t.Context().Done():
	case <-time.After(time.Minute):
	}
	t.Fatal("no turn ran")
	return nil
}

func testConfig(t testing.TB, r Runner) Config {
	return Config{
		Runner: r, Lanes: map[string]int{"main": 4, "cron": 1},
		MaxAttempts: 3, OnInterrupt: RetryTurn, MaxQueued: 100_000, MaxQueuedPerSession: 1000,
		MaxOutput: 4 << 20, Retention: time.Hour, CancelGrace: 5 * time.Second, RetryBackoff: time.Second, MaxInput: 1 << 20,
		Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	}
}

func storePath(t testing.TB) string { return filepath.Join(t.TempDir(), "gateway.db") }

// openQueue opens a queue that is closed at the end of the test.
func openQueue(t testing.TB, path string, cfg Config) *Queue {
	t.Helper()
	q, err := Open(t.Context(), path, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { closeQueue(t, q) })
	return q
}

// pause stops further starts; what runs goes on.
func pause(q *Queue) { q.scheduler.ask(func() { q.scheduler.paused = true }) }

func closeQueue(t testing.TB, q *Queue) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, q.Close(ctx))
}

// faultyStore is a store whose commits fail while fault says so. written sees what was committed before anybody else
// learns of it.
type faultyStore struct {
	Store
	fault   atomic.Pointer[func(ops []operation) error]
	written atomic.Pointer[func(ops []operation)]
}

func (s *faultyStore) commit(ops []operation) error {
	if fault := s.fault.Load(); fault != nil {
		if err := (*fault)(ops); err != nil {
			return err
		}
	}
	err := s.Store.commit(ops)
	if written := s.written.Load(); err == nil && written != nil {
		(*written)(ops)
	}
	return err
}

func (s *faultyStore) failWith(fault func(ops []operation) error) {
	if fault == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&fault)
}

// openFaulty is openQueue over a faulty store. It is not closed by itself.
func openFaulty(t testing.TB, path string, cfg Config) (*Queue, *faultyStore) {
	t.Helper()
	store, err := openSQLite(t.Context(), path)
	require.NoError(t, err)
	faulty := &faultyStore{Store: store}
	q, err := open(faulty, cfg)
	require.NoError(t, err)
	return q, faulty
}

// crash ends a generation the way a kill does: from now on nothing of it reaches the disk.
func crash(t testing.TB, q *Queue, store *faultyStore) {
	t.Helper()
	store.failWith(func([]operation) error { return errors.New("the process is gone") })
	q.committer.giveUp()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, q.Close(ctx))
}

func accept(t testing.TB, q *Queue, session, input string) Turn {
	t.Helper()
	turn, created, err := q.Accept(t.Context(), NewTurn{Session: session, Lane: "main", Agent: "echo", Input: input})
	require.NoError(t, err)
	require.True(t, created)
	return turn
}

func wait(t testing.TB, q *Queue, id string) Turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	turn, err := q.Wait(ctx, id)
	require.NoError(t, err)
	return turn
}

// log is the turn's whole event log, as short text.
func log(t testing.TB, q *Queue, id string) []string {
	t.Helper()
	events, err := q.store.events(t.Context(), id, 0, 1000)
	require.NoError(t, err)
	var lines []string
	for i, e := range events {
		require.Equal(t, int64(i+1), e.Seq, "events are numbered without gaps")
		line := fmt.Sprintf("%s/%d", e.Type, e.Attempt)
		if e.Text != "" {
			line += " " + e.Text
		}
		lines = append(lines, line)
	}
	return lines
}

// beforeTurn is a time at which the turn was not accepted yet.
func beforeTurn(t testing.TB, q *Queue, id string) time.Time {
	turn, err := q.Turn(t.Context(), id)
	require.NoError(t, err)
	return turn.CreatedAt.Add(-time.Hour)
}
