package server

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
)

func TestStatsCountWhatIsThereAndWhatWas(t *testing.T) {
	g := newGateway(t)
	status, _, _ := g.do(http.MethodGet, "/v1/models", "")
	require.Equal(t, http.StatusOK, status)
	status, _, _ = g.do(http.MethodGet, "/v1/turns/none", "")
	require.Equal(t, http.StatusNotFound, status)
	_, _, err := g.dial(nil) // who was not greeted is no client yet
	require.NoError(t, err)
	w := g.connect()
	stats := g.Stats()
	require.Equal(t, 1, stats.WebSockets)
	require.Equal(t, g.ingress.Open(), stats.Connections)
	require.EqualValues(t, 1, stats.Answers[http.StatusNotFound])
	require.EqualValues(t, 1, stats.Answers[http.StatusOK])
	require.EqualValues(t, 2, stats.Answers[http.StatusSwitchingProtocols])
	require.Empty(t, stats.SentAway)

	g.machine.set(fsm.Held)
	answered := make(chan int, 1)
	go func() {
		status, _, _ := g.do(http.MethodGet, "/v1/models", "")
		answered <- status
	}()
	waitFor(t, func() bool { return g.Stats().Held == 1 })
	g.machine.set(fsm.Open)
	require.Equal(t, http.StatusOK, <-answered)
	require.Zero(t, g.Stats().Held)
	require.NoError(t, w.Conn.CloseNow())
	waitFor(t, func() bool { return g.Stats().WebSockets == 0 })
}
