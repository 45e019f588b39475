package queue

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFollowGoesLiveAndEndsWithTheTurn(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	turn := accept(t, q, "s", "x")
	events := make(chan Event, 10)
	go func() {
		defer close(events)
		for e, err := range q.Follow(context.Background(), turn.ID, 0) {
			if err != nil {
				t.Error(err)
				return
			}
			events <- e
		}
	}()
	next := func() (string, string) {
		t.Helper()
		select {
		case e := <-events:
			return string(e.Type), e.Text
		case <-time.After(time.Minute):
			require.Fail(t, "no event")
			return "", ""
		}
	}
	require.Empty(t, events, "nothing has happened")
	q.Resume()
	work := g.next(t)
	typ, _ := next()
	require.Equal(t, "started", typ)
	for _, text := range []string{"a", "b", "c"} {
		require.NoError(t, work.Emit(text))
		typ, got := next()
		require.Equal(t, []string{"delta", text}, []string{typ, got}, "each is seen while the turn runs")
	}
	work.end <- nil
	typ, _ = next()
	require.Equal(t, "completed", typ)
	_, more := <-events
	require.False(t, more)
}

func TestFollowAndWaitEndWithTheirContext(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	turn := accept(t, q, "s", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := q.Wait(ctx, turn.ID)
	require.ErrorIs(t, err, context.Canceled)
	var last error
	for _, err := range q.Follow(ctx, turn.ID, 0) {
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
	q.hub.mu.Lock()
	defer q.hub.mu.Unlock()
	require.Empty(t, q.hub.topics, "a watcher that went away costs nothing")
}
