package openclaw

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

// A terminal that was open over a restart connects again and waits for the answer; it does not send again.
func TestWhoConnectsAfterARestartHearsOfTheRunsFromBefore(t *testing.T) {
	g := newGateway(t)
	g.connect().Call("chat.send", `{"message":"block","idempotencyKey":"before"}`)
	g.began()
	g.restart()
	w := g.connect()
	g.began()
	close(g.agent.Release)
	final := w.Event("chat", func(p map[string]any) bool { return p["state"] == "final" })
	require.Equal(t, "before", final["runId"])
	require.Equal(t, "agent:echo:main", final["sessionKey"])
	require.Equal(t, "begun and done", final["message"].(map[string]any)["content"].([]any)[0].(map[string]any)["text"])
}

func TestAStopIsAnnouncedAsOneThatDoesNotComeBack(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	g.Retire(api.Notice{Reason: "gateway stopping"})
	bye := w.Event("shutdown", func(map[string]any) bool { return true })
	require.Equal(t, map[string]any{"reason": "gateway stopping"}, bye)
	require.Equal(t, "service restart", w.Closed().Reason)
}
