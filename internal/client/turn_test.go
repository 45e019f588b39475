package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/client/clienttest"
)

func TestFollowPassesEachEventOnceAcrossCuts(t *testing.T) {
	var resumed clienttest.Recorder
	dir := clienttest.Turn(t, clienttest.Accepted,
		resumed.Of(func(r *http.Request) string { return r.URL.Query().Get("starting_after") }, clienttest.Answers(
			clienttest.StreamThenCut(0, "created", "output_item.added", "output_text.delta:one "),
			clienttest.Refusal(http.StatusServiceUnavailable, "away"),
			clienttest.Cut,
			clienttest.Stream(1, "output_item.added", "output_text.delta:one ", "output_text.delta:two"), // repeats the first delta
			clienttest.Stream(4, "output_text.done", "completed"),
		)), map[string]any{"status": "completed", "output": "one two"})
	c := In(dir)
	away := 0
	p := Patience{Away: func() { away++ }}
	id, err := c.Submit(t.Context(), Submission{Session: "main", Input: "hello"}, p)
	require.NoError(t, err)
	var kinds []string
	text := ""
	require.NoError(t, c.Follow(t.Context(), id, p, func(e Event) error {
		require.Equal(t, len(kinds), e.Number)
		kinds = append(kinds, e.Kind)
		text += e.Delta
		require.Equal(t, e.Kind == "response.completed", e.Last())
		return nil
	}))
	require.Equal(t, "one two", text)
	require.Len(t, kinds, 6)
	require.Equal(t, []string{"", "2", "2", "2", "3"}, resumed.Asked())
	require.NotZero(t, away)
	turn, err := c.Settled(t.Context(), id, p)
	require.NoError(t, err)
	require.Equal(t, "one two", turn.Output)
}

func TestFollowEndsWithTheErrorOfTake(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted, clienttest.Stream(0, "created"), map[string]any{})
	full := errors.New("the disk is full")
	require.Equal(t, full, In(dir).Follow(t.Context(), "t1", Patience{}, func(Event) error { return full }))
}

func TestAPageIsNotAStream(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer page.Close()
	c, err := At(page.URL, "")
	require.NoError(t, err)
	require.ErrorContains(t, c.Watch(t.Context(), func(Sighting) error { return nil }), "reading the answer of "+page.URL)
}

// Retries come at growing intervals, without an end unless there is a limit.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nobody := &AbsentError{"nobody", "run"}
		began, tries, away := time.Now(), 0, 0
		require.NoError(t, Patience{Away: func() { away++ }}.persist(t.Context(), func() error {
			if tries++; time.Since(began) > time.Hour {
				return nil
			}
			return nobody
		}))
		require.Less(t, tries, 3600*3/2)
		require.Equal(t, tries-1, away)

		began = time.Now()
		require.Equal(t, nobody, Patience{Limit: time.Minute}.persist(t.Context(), func() error { return nobody }))
		require.LessOrEqual(t, time.Since(began), time.Minute)
	})
}

func TestPresentFailsWhenNoGatewayHasAnswered(t *testing.T) {
	_, err := In(t.TempDir()).Submit(t.Context(), Submission{Input: "hello"}, Patience{Present: true})
	var nobody *AbsentError
	require.ErrorAs(t, err, &nobody)
}
