package queue

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkRawSync is what the disk itself can do: append a page to a file and sync it, one after another. A
// commit of any number of turns costs at least one of these.
func BenchmarkRawSync(b *testing.B) {
	f, err := os.Create(storePath(b))
	require.NoError(b, err)
	page := make([]byte, 4096)
	for b.Loop() {
		_, err := f.Write(page)
		require.NoError(b, err)
		require.NoError(b, f.Sync())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
	require.NoError(b, f.Close())
}

// BenchmarkAcceptLatency offers 10,000 turns a second, whether or not the ones before are answered, and
// reports how long an acceptance takes.
func BenchmarkAcceptLatency(b *testing.B) {
	const perTick, tick = 10, time.Millisecond
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	took := make([]time.Duration, b.N)
	var clients sync.WaitGroup
	clock := time.NewTicker(tick)
	defer clock.Stop()
	b.ResetTimer()
	for i := 0; i < b.N; {
		<-clock.C
		for range min(perTick, b.N-i) {
			n := i
			i++
			clients.Go(func() {
				began := time.Now()
				_, _, err := q.Accept(b.Context(), NewTurn{Session: "session-" + strconv.Itoa(n%1000), Lane: "main", Agent: "echo", Input: "hello"})
				if err != nil {
					b.Error(err)
				}
				took[n] = time.Since(began)
			})
		}
	}
	clients.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
}

// BenchmarkAgeing runs full turns for a minute and reports the last five seconds against the first.
func BenchmarkAgeing(b *testing.B) {
	const parts, slice = 12, 5 * time.Second
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	var done [parts]atomic.Int64
	ctx, cancel := context.WithTimeout(b.Context(), parts*slice)
	defer cancel()
	began := time.Now()
	var clients sync.WaitGroup
	for i := range 1000 {
		clients.Go(func() {
			for {
				t, _, err := q.Accept(ctx, NewTurn{Session: "session-" + strconv.Itoa(i), Lane: "main", Agent: "echo", Input: "hello"})
				if err == nil {
					_, err = q.Wait(ctx, t.ID)
				}
				if err != nil {
					return
				}
				if at := int(time.Since(began) / slice); at < parts {
					done[at].Add(1)
				}
			}
		})
	}
	clients.Wait()
	for i := range done {
		b.Logf("%2d–%2d s: %6.0f turns/s", i*5, i*5+5, float64(done[i].Load())/slice.Seconds())
	}
	b.ReportMetric(100*float64(done[parts-1].Load())/float64(done[0].Load()), "last/first-%")
}
