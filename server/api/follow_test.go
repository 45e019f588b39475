package api

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/queue"
)

// feed is a queue with one turn, which runs.
type feed chan queue.Event

func (f feed) Place(string) (queue.Place, bool) { return queue.Place{}, false }

func (f feed) Follow(ctx context.Context, _ string, _ int64) iter.Seq2[queue.Event, error] {
	return func(yield func(queue.Event, error) bool) {
		for {
			select {
			case e, more := <-f:
				if !more || !yield(e, nil) {
					return
				}
			case <-ctx.Done():
				yield(queue.Event{}, ctx.Err())
				return
			}
		}
	}
}

func TestASilentStreamIsSeenAliveAfterTenSecondsAndThenEveryFifteen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, f, start := NewRetirement(), make(feed), time.Now()
		var at []time.Duration
		for u, err := range Follow(t.Context(), gone, f, "", 0) {
			require.NoError(t, err)
			at = append(at, time.Since(start))
			if u.Event != nil {
				break
			}
			if len(at) == 3 {
				go func() {
					time.Sleep(5 * time.Second)
					f <- queue.Event{Seq: 1}
				}()
			}
		}
		require.Equal(t, []time.Duration{10 * time.Second, 25 * time.Second, 40 * time.Second, 45 * time.Second}, at)
	})
}

// waitingFeed is a queue with one turn, which waits.
type waitingFeed struct {
	feed
	place atomic.Pointer[queue.Place]
}

func (f *waitingFeed) Place(string) (queue.Place, bool) {
	p := f.place.Load()
	if p == nil {
		return queue.Place{}, false
	}
	return *p, true
}

func TestWhoeverFollowsIsToldAfterTwoSecondsWhyTheTurnWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, f, start := NewRetirement(), &waitingFeed{feed: make(feed)}, time.Now()
		f.place.Store(&queue.Place{Ahead: 2, Reason: "two before it"})
		go func() {
			time.Sleep(7 * time.Second)
			f.place.Store(&queue.Place{Ahead: 1, Reason: "one before it"})
			time.Sleep(2 * time.Second)
			f.place.Store(nil)
			f.feed <- queue.Event{Seq: 1, Type: queue.EventStarted}
			time.Sleep(500 * time.Millisecond)
			f.place.Store(&queue.Place{Reason: "again"})
			f.feed <- queue.Event{Seq: 2, Type: queue.EventInterrupted}
		}()
		var told []string
		for u, err := range Follow(t.Context(), gone, f, "", 0) {
			require.NoError(t, err)
			if u.Waits != nil {
				told = append(told, time.Since(start).String()+" "+u.Waits.Reason)
			}
			if len(told) == 3 {
				break
			}
		}
		require.Equal(t, []string{"2s two before it", "8s one before it", "11.5s again"}, told)
	})
}

func TestAStreamEndsWithTheNoticeWhenTheGatewayRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, f := NewRetirement(), make(feed)
		expected := int64(1500)
		notice := Notice{Reason: "gateway restarting", RestartExpectedMS: &expected}
		go func() { f <- queue.Event{Seq: 1} }()
		var last error
		for u, err := range Follow(t.Context(), gone, f, "", 0) {
			if u.Event != nil {
				gone.Begin(notice)
			}
			last = err
		}
		var stop *Retired
		require.ErrorAs(t, last, &stop)
		require.Equal(t, notice, stop.Notice)
		require.ErrorIs(t, last, queue.ErrClosed, "the gate would not hold the request")
	})
}

// Carrying a connection also ends its request's context; the client must hear why, not just see the end.
func TestRetirementOutranksTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, f := NewRetirement(), make(feed)
		ctx, cancel := context.WithCancel(t.Context())
		gone.Begin(Notice{Reason: "gateway stopping"})
		cancel()
		for _, err := range Follow(ctx, gone, f, "", 0) {
			var stop *Retired
			require.ErrorAs(t, err, &stop)
		}
	})
}

func TestAStreamEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, f := NewRetirement(), make(feed)
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		var last error
		for _, err := range Follow(ctx, gone, f, "", 0) {
			last = err
		}
		require.ErrorIs(t, last, context.Canceled)
		require.NotErrorIs(t, last, queue.ErrClosed)
	})
}

// timed records the deadlines that a stream sets, and when.
type timed struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *timed) SetWriteDeadline(t time.Time) error {
	w.deadlines = append(w.deadlines, t)
	return nil
}

func TestEveryWriteHasADeadlineAndTheConnectionIsLeftWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &timed{ResponseRecorder: httptest.NewRecorder()}
		out, start := NewStream(w), time.Now()
		require.NoError(t, out.Send("a", "1", 1))
		time.Sleep(time.Minute)
		require.NoError(t, out.Comment("keep-alive"))
		require.NoError(t, out.End())
		require.Equal(t, start.Add(WriteTimeout), w.deadlines[0])
		require.Equal(t, start.Add(time.Minute+WriteTimeout), w.deadlines[1])
		require.Zero(t, w.deadlines[len(w.deadlines)-1])
		require.Equal(t, "id: 1\nevent: a\ndata: 1\n\n: keep-alive\n\n", w.Body.String())

		w = &timed{ResponseRecorder: httptest.NewRecorder()}
		require.NoError(t, Reply(w, http.StatusOK, 1))
		require.Equal(t, []time.Time{time.Now().Add(WriteTimeout), {}}, w.deadlines)
	})
}

func TestAStreamThatFailsSaysSo(t *testing.T) {
	log := zerolog.Nop()
	r := httptest.NewRequest(http.MethodGet, "/v1/turns/t1/events", nil)
	e, stop := CutShort(&log, r, errors.New("disk on fire"), "again")
	require.Nil(t, stop)
	require.Equal(t, "internal_error", e.Code)
	require.NotContains(t, e.Message, "fire", "what is inside stays inside")
}
