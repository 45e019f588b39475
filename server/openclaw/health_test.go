package openclaw

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/wire"
)

func TestStatusCountsTheSessions(t *testing.T) {
	g := newGateway(t)
	first := g.connect()
	for i := range 7 {
		first.Call("agent", fmt.Sprintf(`{"message":"m","sessionKey":"s%d","idempotencyKey":"k"}`, i))
		first.Response("1")
	}
	first.Call("agent", `{"message":"m","agentId":"other","idempotencyKey":"k"}`)
	first.Response("1")
	g.hub.census.mu.Lock()
	g.hub.census.of = nil // as if a second had passed
	g.hub.census.mu.Unlock()

	status := first.Call("status", `{}`)["payload"].(map[string]any)
	sessions := status["sessions"].(map[string]any)
	require.InDelta(t, 8, sessions["count"], 0)
	require.Len(t, sessions["recent"], maxRecent)
	require.Equal(t, "agent:other:main", sessions["recent"].([]any)[0].(map[string]any)["key"])
	counts := map[any]any{}
	for _, a := range sessions["byAgent"].([]any) {
		agent := a.(map[string]any)
		counts[agent["agentId"]] = agent["count"]
	}
	require.Equal(t, map[any]any{"echo": 7.0, "other": 1.0}, counts)
}

func TestAllAreToldHowTheGatewayIs(t *testing.T) {
	g := newGateway(t)
	w, other := g.connect(), g.connect()
	for range 3 { // as three ticks at once would
		g.hub.tellHealth(g.backend)
	}
	for _, reader := range []*wire.Client{w, other} {
		require.Equal(t, true, reader.Event("health", func(map[string]any) bool { return true })["ok"])
		reader.Call("health", `{}`)
		for _, f := range reader.Events {
			require.NotEqual(t, "health", f["event"], "once is enough")
		}
	}
}

// Who has shown no token yet takes no place from those who have.
func TestStrangersHaveFewerPlaces(t *testing.T) {
	h := New(Options{})
	defer h.cancel()
	var last *socket
	for range maxStrangers {
		last = &socket{}
		require.True(t, h.enter(last))
	}
	require.False(t, h.enter(&socket{}))
	h.joined(last, func() {})
	next := &socket{}
	require.True(t, h.enter(next), "one of them has connected")
	require.False(t, h.enter(&socket{}))
	h.leave(next)
	h.leave(last)
	require.True(t, h.enter(&socket{}))
	require.False(t, h.enter(&socket{}), "the place of one who had connected was not theirs")
}

// With thousands of clients, each that comes would otherwise be told to all with a list of all.
func TestPresenceListsTheNewestClients(t *testing.T) {
	h := New(Options{})
	defer h.cancel()
	h.telling = true // it tells nobody
	began := time.Now()
	for i := range 3 * maxPresence {
		c := &socket{peer: peer{ID: "c", since: began.Add(time.Duration(i) * time.Millisecond)}}
		require.True(t, h.enter(c))
		h.joined(c, func() {})
	}
	list := h.presence()
	require.Len(t, list, maxPresence)
	require.Equal(t, began.Add((3*maxPresence-1)*time.Millisecond).UnixMilli(), list[0]["ts"])
}
