package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// callers is a number of producers at once, each of which waits for its answer before it calls again, and the
// numbers of sessions that they are measured with.
type callers struct {
	producers int
	sessions  []int
}

func fewAndMany() []callers {
	sessions := []int{1, 1000, 100_000}
	return []callers{{1, sessions}, {64, sessions}}
}

// BenchmarkAccept is durable acceptance.
func BenchmarkAccept(b *testing.B) {
	eachOf(b, fewAndMany(), func(b *testing.B, producers, sessions int) {
		q := openQueue(b, storePath(b), benchConfig(b, echo))
		measureCalls(b, producers, sessions, func(session string) error {
			_, err := acceptHello(b.Context(), q, session)
			return err
		})
	})
}

// BenchmarkFullTurns is turns accepted, started, run and completed, all durable.
func BenchmarkFullTurns(b *testing.B) {
	eachOf(b, append(fewAndMany(), callers{1000, []int{1000}}), func(b *testing.B, producers, sessions int) {
		q := openQueue(b, storePath(b), benchConfig(b, echo))
		q.Resume()
		measureCalls(b, producers, sessions, func(session string) error { return completeHello(b.Context(), q, session) })
	})
}

// BenchmarkFollow reads the whole log of a turn that has ended, as every stream does at least once.
func BenchmarkFollow(b *testing.B) {
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	t, err := acceptHello(b.Context(), q, "session")
	require.NoError(b, err)
	_, err = q.Wait(b.Context(), t.ID)
	require.NoError(b, err)
	for b.Loop() {
		n := 0
		for _, err := range q.Follow(b.Context(), t.ID, 0) {
			require.NoError(b, err)
			n++
		}
		require.Equal(b, 3, n)
	}
}

func acceptHello(ctx context.Context, q *Queue, session string) (Turn, error) {
	t, _, err := q.Accept(ctx, NewTurn{Session: session, Lane: "main", Agent: "echo", Input: "hello"})
	return t, err
}

func completeHello(ctx context.Context, q *Queue, session string) error {
	t, err := acceptHello(ctx, q, session)
	if err == nil {
		_, err = q.Wait(ctx, t.ID)
	}
	return err
}

// eachOf makes a benchmark of each number of producers and sessions.
func eachOf(b *testing.B, all []callers, measure func(b *testing.B, producers, sessions int)) {
	for _, c := range all {
		b.Run("producers="+strconv.Itoa(c.producers), func(b *testing.B) {
			for _, sessions := range c.sessions {
				b.Run("sessions="+strconv.Itoa(sessions), func(b *testing.B) { measure(b, c.producers, sessions) })
			}
		})
	}
}

// measureCalls measures b.N calls.
func measureCalls(b *testing.B, producers, sessions int, f func(session string) error) {
	names := sessionNames(sessions)
	b.ReportAllocs()
	b.ResetTimer()
	produce(b, producers, b.N, func(n int) error { return f(names[n%sessions]) })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
}

// sessionNames are in no order, the same at every run: ascending names would flatter the index.
func sessionNames(n int) []string {
	names := make([]string, n)
	for at, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		names[at] = "session-" + strconv.Itoa(i)
	}
	return names
}

// produce shares n calls out to the producers, dealt like cards: with as many sessions as producers each has its
// own.
func produce(b *testing.B, producers, n int, f func(n int) error) {
	var clients sync.WaitGroup
	for first := range producers {
		clients.Go(func() {
			for at := first; at < n; at += producers {
				if err := f(at); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// BenchmarkOpen is opening a store in which turns wait, or that has kept finished ones.
func BenchmarkOpen(b *testing.B) {
	b.Run("queued=100000", func(b *testing.B) {
		opening(b, func(q *Queue) { accept100k(b, q) }, 100_000)
	})
	b.Run("finished=1000000", func(b *testing.B) {
		opening(b, func(q *Queue) {
			q.Resume()
			names := sessionNames(100_000)
			produce(b, 1000, 1_000_000, func(n int) error { return completeHello(b.Context(), q, names[n%len(names)]) })
		}, 0)
	})
}

// opening measures how long a store takes to open. The sub-benchmark repeats on the store that was filled once.
func opening(b *testing.B, fill func(*Queue), queued int) {
	path, cfg := storePath(b), benchConfig(b, echo)
	q, err := Open(b.Context(), path, cfg)
	require.NoError(b, err)
	fill(q)
	closeQueue(b, q)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			q, err := Open(b.Context(), path, cfg)
			require.NoError(b, err)
			b.StopTimer()
			require.Equal(b, queued, q.Stats().Queued)
			closeQueue(b, q)
			b.StartTimer()
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms")
	})
}

// accept100k leaves a turn waiting in each of 100,000 sessions.
func accept100k(b *testing.B, q *Queue) {
	names := sessionNames(100_000)
	produce(b, 256, len(names), func(n int) error {
		_, err := acceptHello(b.Context(), q, names[n])
		return err
	})
}

// BenchmarkAcceptLatency offers 10,000 turns a second, whether or not the ones before are answered, and
// reports how long an acceptance takes.
func BenchmarkAcceptLatency(b *testing.B) {
	const perTick, tick = 10, time.Millisecond
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	names := sessionNames(1000)
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
				if _, err := acceptHello(b.Context(), q, names[n%len(names)]); err != nil {
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

// BenchmarkAgeing runs full turns for a minute, and reports each five seconds of it and the last against the
// first.
func BenchmarkAgeing(b *testing.B) {
	const parts, slice = 12, 5 * time.Second
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	var done [parts]atomic.Int64
	ctx, cancel := context.WithTimeout(b.Context(), parts*slice)
	defer cancel()
	began := time.Now()
	var clients sync.WaitGroup
	for _, session := range sessionNames(1000) {
		clients.Go(func() {
			for {
				if err := completeHello(ctx, q, session); err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
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
		b.ReportMetric(float64(done[i].Load())/slice.Seconds(), fmt.Sprintf("turns/s@%02ds", i*5))
	}
	b.ReportMetric(100*float64(done[parts-1].Load())/float64(done[0].Load()), "last/first-%")
}
