package queue

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

func benchConfig(b *testing.B, r Runner) Config {
	cfg := testConfig(b, r)
	cfg.Lanes = map[string]int{"main": 1000}
	cfg.MaxQueued, cfg.MaxQueuedPerSession = 10_000_000, 10_000_000
	cfg.Log = zerolog.Nop()
	return cfg
}

// BenchmarkFullTurns is turns accepted, started, run and completed, all durable: 1,000 sessions, each with
// one client that waits for its answer before it sends the next.
func BenchmarkFullTurns(b *testing.B) {
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	perSession(b, 1000, func(ctx context.Context, session string) error {
		t, _, err := q.Accept(ctx, NewTurn{Session: session, Lane: "main", Agent: "echo", Input: "hello"})
		if err != nil {
			return err
		}
		_, err = q.Wait(ctx, t.ID)
		return err
	})
}

// BenchmarkAccept is durable acceptance by 64 clients.
func BenchmarkAccept(b *testing.B) {
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	perSession(b, 64, func(ctx context.Context, session string) error {
		_, _, err := q.Accept(ctx, NewTurn{Session: session, Lane: "main", Agent: "echo", Input: "hello"})
		return err
	})
}

// perSession shares b.N calls out to n sessions at once.
func perSession(b *testing.B, n int, call func(ctx context.Context, session string) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var clients sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for i := range n {
		session := "session-" + strconv.Itoa(i)
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(b.Context(), session); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
}

// BenchmarkOpen is opening a store with 100,000 queued turns.
func BenchmarkOpen(b *testing.B) {
	path := storePath(b)
	cfg := benchConfig(b, echo)
	q, err := Open(b.Context(), path, cfg)
	require.NoError(b, err)
	var left atomic.Int64
	left.Store(100_000)
	var clients sync.WaitGroup
	for i := range 256 {
		session := "session-" + strconv.Itoa(i)
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				_, _, err := q.Accept(b.Context(), NewTurn{Session: session, Lane: "main", Agent: "echo", Input: "hello"})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	closeQueue(b, q)
	for b.Loop() {
		q, err := Open(b.Context(), path, cfg)
		require.NoError(b, err)
		require.Equal(b, 100_000, q.Stats().Queued)
		b.StopTimer()
		closeQueue(b, q)
		b.StartTimer()
	}
}
