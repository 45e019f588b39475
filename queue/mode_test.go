package queue

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func send(t testing.TB, q *Queue, n NewTurn) (Turn, bool) {
	t.Helper()
	if n.Session == "" {
		n.Session = "s"
	}
	n.Lane, n.Agent = "main", "echo"
	turn, created, err := q.Accept(t.Context(), n)
	require.NoError(t, err)
	return turn, created
}

func TestCollectJoinsWhatGathersWhileATurnRuns(t *testing.T) {
	g := newGated()
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, g))
	q.Resume()
	first, created := send(t, q, NewTurn{Input: "one", Mode: Collect})
	require.True(t, created)
	running := g.next(t)

	second, created := send(t, q, NewTurn{Input: "two", Mode: Collect, IdempotencyKey: "k2"})
	require.True(t, created, "what runs has its input already")
	third, created := send(t, q, NewTurn{Input: "three", Mode: Collect, IdempotencyKey: "k3"})
	require.False(t, created)
	require.Equal(t, second.ID, third.ID)
	require.Equal(t, "two\n\nthree", third.Input)
	again, created := send(t, q, NewTurn{Input: "three", Mode: Collect, IdempotencyKey: "k3"})
	require.False(t, created)
	require.Equal(t, third, again, "the key of an input that joined names the turn, and joins it once")
	_, _, err := q.Accept(t.Context(), NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "other", Mode: Collect, IdempotencyKey: "k3"})
	require.ErrorIs(t, err, ErrKeyReused)
	require.Equal(t, 1, q.Stats().Queued)

	running.end <- nil
	require.Equal(t, Completed, wait(t, q, first.ID).Status)
	next := g.next(t)
	require.Equal(t, "two\n\nthree", next.Turn.Input, "the agent gets all that gathered")
	fourth, created := send(t, q, NewTurn{Input: "four", Mode: Collect})
	require.True(t, created)
	next.end <- nil
	g.next(t).end <- nil
	wait(t, q, fourth.ID)
	require.Equal(t, []string{"collected/0 three", "started/1", "completed/1"}, log(t, q, second.ID))
}

func TestCollectJoinsOnlyItsOwnKind(t *testing.T) {
	cfg := testConfig(t, newGated())
	cfg.MaxInput = 20
	q := openQueue(t, storePath(t), cfg)
	first, _ := send(t, q, NewTurn{Input: "one", Mode: Collect})
	for name, n := range map[string]NewTurn{
		"another session": {Session: "other", Input: "x", Mode: Collect},
		"too long":        {Input: strings.Repeat("x", 16), Mode: Collect},
	} {
		_, created := send(t, q, n)
		require.True(t, created, name)
	}
	q2 := openQueue(t, storePath(t), testConfig(t, newGated()))
	send(t, q2, NewTurn{Input: "one", Mode: Collect})
	_, created := send(t, q2, NewTurn{Input: "x", Context: []byte(`{"a":1}`), Mode: Collect})
	require.True(t, created, "another context")
	_, created = send(t, q2, NewTurn{Input: "x", Mode: Followup})
	require.True(t, created, "another mode")
	_, created = send(t, q2, NewTurn{Input: "x", Mode: Collect})
	require.True(t, created, "it would overtake the one before")
	require.Equal(t, "one", first.Input)
}

func TestATurnThatHasRunIsNotJoined(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	first, _ := send(t, q, NewTurn{Input: "one", Mode: Collect})
	g.next(t).end <- Temporary(errTest, 0)
	require.Eventually(t, func() bool { return q.Stats().Queued == 1 }, waitLimit, waitTick)
	second, created := send(t, q, NewTurn{Input: "two", Mode: Collect})
	require.True(t, created, "its agent may have acted on the input already")
	require.NotEqual(t, first.ID, second.ID)
}

func TestInterruptCancelsWhatComesBeforeAndRunsNext(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	first, _ := send(t, q, NewTurn{Input: "one"})
	g.next(t)
	second, _ := send(t, q, NewTurn{Input: "two"})
	other, _ := send(t, q, NewTurn{Session: "other", Input: "x"})
	g.next(t).end <- nil
	newest, _ := send(t, q, NewTurn{Input: "three", Mode: Interrupt})
	next := g.next(t)
	require.Equal(t, newest.ID, next.Turn.ID)
	next.end <- nil
	require.Equal(t, Completed, wait(t, q, newest.ID).Status)
	require.Equal(t, Completed, wait(t, q, other.ID).Status, "another session's business")
	for _, id := range []string{first.ID, second.ID} {
		turn := wait(t, q, id)
		require.Equal(t, Cancelled, turn.Status)
		require.Equal(t, "superseded by a newer message", turn.Error)
	}
}

func TestInterruptHoldsAcrossACrash(t *testing.T) {
	g := newGated()
	path := storePath(t)
	q, store := openFaulty(t, path, testConfig(t, g))
	q.Resume()
	first, _ := send(t, q, NewTurn{Input: "one"})
	g.next(t)
	second, _ := send(t, q, NewTurn{Input: "two"})
	// The newest is on disk, and nothing after it.
	store.failWith(func(ops []operation) error {
		for _, op := range ops {
			if _, ok := op.(*acceptTurn); !ok {
				return errTest
			}
		}
		return nil
	})
	newest, _ := send(t, q, NewTurn{Input: "three", Mode: Interrupt})
	crash(t, q, store)

	q = openQueue(t, path, testConfig(t, g))
	q.Resume()
	next := g.next(t)
	require.Equal(t, newest.ID, next.Turn.ID)
	next.end <- nil
	for _, id := range []string{first.ID, second.ID} {
		require.Equal(t, Cancelled, wait(t, q, id).Status)
	}
}

func TestASessionHasAModeOfItsOwn(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, newGated()))
	collect := Collect
	session, err := q.SetSession(t.Context(), "s", SessionChange{Mode: &collect})
	require.NoError(t, err)
	require.Equal(t, Session{Name: "s", Mode: Collect}, session)
	for _, c := range []struct {
		name        string
		session     string
		mode, agent Mode
		want        Mode
	}{
		{"nobody says", "t", "", "", Followup},
		{"the agent says", "t", "", Interrupt, Interrupt},
		{"the session says", "s", "", Interrupt, Collect},
		{"the request says", "s", Followup, Interrupt, Followup},
	} {
		turn, _ := send(t, q, NewTurn{Session: c.session, Input: c.name, Mode: c.mode, DefaultMode: c.agent})
		require.Equal(t, c.want, turn.Mode, c.name)
	}
	closeQueue(t, q)

	q = openQueue(t, path, testConfig(t, newGated()))
	turn, _ := send(t, q, NewTurn{Input: "after a restart"})
	require.Equal(t, Collect, turn.Mode)
	none := Mode("")
	session, err = q.SetSession(t.Context(), "s", SessionChange{Mode: &none})
	require.NoError(t, err)
	require.Empty(t, session.Mode)
	require.Empty(t, q.scheduler.settings, "what is set back costs nothing")

	wrong := Mode("wrong")
	_, err = q.SetSession(t.Context(), "s", SessionChange{Mode: &wrong})
	require.ErrorContains(t, err, "followup")
	_, _, err = q.Accept(t.Context(), NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "x", Mode: wrong})
	require.ErrorContains(t, err, "followup")
}
