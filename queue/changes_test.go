package queue

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChangesOfTurnsAreToldInOrderAndWhoFallsBehindIsToldSo(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	changed, start, missed := q.Changes(0)
	require.Empty(t, changed)
	require.False(t, missed)

	first := accept(t, q, "s", "x")
	changed, accepted, _ := q.Changes(start)
	require.Equal(t, []Change{{Turn: first.ID, Session: "s", Lane: first.Lane, Agent: first.Agent, Status: Queued}}, changed)
	require.Greater(t, accepted, start)

	q.Resume()
	wait(t, q, first.ID)
	changed, ended, missed := q.Changes(accepted)
	require.False(t, missed)
	var statuses []Status
	for _, c := range changed {
		require.Equal(t, first.ID, c.Turn)
		statuses = append(statuses, c.Status)
	}
	require.Equal(t, []Status{Running, Completed}, statuses)

	_, err := q.PauseLane(t.Context(), "main", true)
	require.NoError(t, err)
	changed, paused, _ := q.Changes(ended)
	require.Empty(t, changed, "no turn has changed")
	require.Greater(t, paused, ended, "a lane has")

	for range keptChanges {
		q.hub.changes.newest++
		q.hub.changes.note(&Turn{ID: "t"})
	}
	changed, _, missed = q.Changes(start)
	require.Len(t, changed, keptChanges)
	require.True(t, missed)
	_, _, missed = q.Changes(paused)
	require.False(t, missed, "exactly these are kept")
}
