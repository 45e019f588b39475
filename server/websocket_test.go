package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/internal/wire"
	"gateway/queue"
	"gateway/server/api"
)

// The queue and the server are closed side by side, and each has its own time.
func TestClosingDoesNotWaitForTheQueue(t *testing.T) {
	g := newGateway(t)
	g.connect().Call("chat.send", `{"message":"block","idempotencyKey":"open"}`)
	g.began()
	g.Retire(api.Notice{Reason: "gateway stopping"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- g.Close(ctx) }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "it waits for a run")
	}
}

func (g *gateway) dial(options *websocket.DialOptions) (w *wire.Client, status int, err error) {
	g.t.Helper()
	return wire.Dial(g.t, g.url, options)
}

func (g *gateway) connect() *wire.Client {
	g.t.Helper()
	return wire.Connect(g.t, g.url)
}

func TestAPageOfAnotherOriginIsRefused(t *testing.T) {
	g := newGateway(t)
	_, status, err := g.dial(&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://evil.example"}}})
	require.Error(t, err)
	require.Equal(t, http.StatusForbidden, status)
	_, status, err = g.dial(&websocket.DialOptions{Host: "evil.example"})
	require.Error(t, err)
	require.Equal(t, http.StatusForbidden, status)
}

func TestAChatIsSentAnsweredAndKept(t *testing.T) {
	g := newGateway(t)
	w, other := g.connect(), g.connect()
	params := `{"sessionKey":"main","message":"hello there","idempotencyKey":"run-1","deliver":false}`
	require.Equal(t, map[string]any{"runId": "run-1", "status": "started"}, w.Call("chat.send", params)["payload"])
	for _, reader := range []*wire.Client{w, other} {
		final := reader.Event("chat", func(p map[string]any) bool { return p["state"] == "final" })
		require.Equal(t, "run-1", final["runId"])
		require.Equal(t, "agent:echo:main", final["sessionKey"])
		require.Equal(t, "hello there", final["message"].(map[string]any)["content"].([]any)[0].(map[string]any)["text"])
	}
	require.Equal(t, "ok", w.Call("chat.send", params)["payload"].(map[string]any)["status"], "the same key is the same run")
	history := w.Call("chat.history", `{"sessionKey":"agent:echo:main","limit":10}`)["payload"].(map[string]any)
	require.Len(t, history["messages"], 2)
	waited := w.Call("agent.wait", `{"runId":"run-1","timeoutMs":1000}`)["payload"].(map[string]any)
	require.Equal(t, "ok", waited["status"])
	sessions := w.Call("sessions.list", `{}`)["payload"].(map[string]any)
	require.Equal(t, "agent:echo:main", sessions["sessions"].([]any)[0].(map[string]any)["key"])
	require.NotNil(t, w.Call("sessions.describe", `{"key":"main"}`)["payload"].(map[string]any)["session"])
	require.Nil(t, w.Call("sessions.describe", `{"key":"none"}`)["payload"].(map[string]any)["session"])
	status, _, body := g.do("GET", "/v1/turns?session=agent:echo:main", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "hello there", "HTTP has the same session")
}

func TestARestartEndsTheConnectionAndLosesNoRun(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	require.Equal(t, "started", w.Call("chat.send", `{"message":"block","idempotencyKey":"run-5"}`)["payload"].(map[string]any)["status"])
	g.began()
	preflight := w.Call("gateway.restart.preflight", `{}`)["payload"].(map[string]any)
	require.Equal(t, false, preflight["safe"])
	asked := w.Call("gateway.restart.request", `{"reason":"to see it"}`)["payload"].(map[string]any)
	require.Equal(t, true, asked["ok"])
	require.Equal(t, preflight, asked["preflight"])
	require.InDelta(t, os.Getpid(), asked["restart"].(map[string]any)["pid"], 0)
	g.restart()
	bye := w.Event("shutdown", func(map[string]any) bool { return true })
	require.Equal(t, map[string]any{"reason": "gateway restarting", "restartExpectedMs": 1500.0}, bye)
	require.Equal(t, websocket.StatusServiceRestart, w.Closed().Code)

	w = g.connect()
	require.Equal(t, "in_flight", w.Call("chat.send", `{"message":"block","idempotencyKey":"run-5"}`)["payload"].(map[string]any)["status"])
	close(g.agent.Release)
	final := w.Event("chat", func(p map[string]any) bool { return p["state"] == "final" })
	require.Equal(t, "begun and done", final["message"].(map[string]any)["content"].([]any)[0].(map[string]any)["text"])
	turns, err := g.backend.Queue.Turns(t.Context(), queue.Filter{})
	require.NoError(t, err)
	require.Len(t, turns, 1, "one run, one turn")
}

// A client answers the close when it gets to it, and everyone else would have to wait for that.
func TestAClientThatIsSlowToCloseHoldsUpNoRestart(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	expected := int64(1500)
	g.machine.set(fsm.Held)
	g.Retire(api.Notice{Reason: "gateway restarting", RestartExpectedMS: &expected})
	require.NoError(t, g.backend.Queue.Close(t.Context()))
	carried := g.Carry(t.Context()) // the client has read nothing yet
	require.Len(t, carried, 1)
	require.True(t, carried[0].CloseSent)
	g.open()
	g.Resume(carried)
	g.machine.set(fsm.Open)
	w.Event("shutdown", func(map[string]any) bool { return true })
	require.Equal(t, websocket.StatusServiceRestart, w.Closed().Code)
}

// Clients that were never configured call the default agent main, and take what is said of another for somebody else's.
func TestAClientIsToldOfItsSessionsAsItCallsThem(t *testing.T) {
	g := newGateway(t)
	w, other := g.connect(), g.connect()
	final := func(w *wire.Client, run, session, agent string) {
		t.Helper()
		p := w.Event("chat", func(p map[string]any) bool { return p["state"] == "final" && p["runId"] == run })
		require.Equal(t, session, p["sessionKey"])
		require.Equal(t, agent, p["agentId"])
	}
	agents := w.Call("agents.list", `{}`)["payload"].(map[string]any)["agents"].([]any)
	require.Equal(t, map[string]any{"id": "main", "name": "echo"}, agents[len(agents)-1])
	history := w.Call("chat.history", `{"sessionKey":"agent:main:desk"}`)["payload"].(map[string]any)
	require.Equal(t, "agent:main:desk", history["sessionKey"])
	require.Equal(t, "agent:echo:desk", history["sessionId"])
	send := `{"sessionKey":"agent:main:desk","sessionId":"agent:echo:desk","message":"hello","idempotencyKey":%q}`
	require.Equal(t, true, w.Call("chat.send", fmt.Sprintf(send, "1"))["ok"])
	final(w, "1", "agent:main:desk", "main")
	final(other, "1", "agent:echo:desk", "echo")
	require.Equal(t, true, other.Call("chat.send", `{"sessionKey":"agent:other:desk","message":"hello","idempotencyKey":"2"}`)["ok"])
	final(w, "2", "agent:other:desk", "other")

	answer := w.Call("agent", `{"message":"hello","sessionKey":"agent:main:desk","sessionId":"desk","agentId":"main","idempotencyKey":"3"}`)["payload"].(map[string]any)
	require.Equal(t, []any{"agent:main:desk", "main"}, []any{answer["sessionKey"], answer["agentId"]})
	answer = w.Response("1")["payload"].(map[string]any)
	require.Equal(t, []any{"agent:main:desk", "main"}, []any{answer["sessionKey"], answer["agentId"]})
	answer = w.Call("chat.resume", `{"runId":"1"}`)["payload"].(map[string]any)
	require.Equal(t, []any{"agent:main:desk", "main"}, []any{answer["sessionKey"], answer["agentId"]})
	final(w, "1", "agent:main:desk", "main")
	for _, agent := range []string{"main", "echo"} {
		sessions := w.Call("sessions.list", `{"agentId":"`+agent+`"}`)["payload"].(map[string]any)["sessions"].([]any)
		require.Len(t, sessions, 1)
		require.Equal(t, "agent:main:desk", sessions[0].(map[string]any)["key"])
	}

	one := w.Call("sessions.describe", `{"key":"agent:echo:desk"}`)["payload"].(map[string]any)["session"].(map[string]any)
	require.Equal(t, []any{"agent:echo:desk", "echo"}, []any{one["key"], one["agentId"]}, "it has used the other name")
	status, _, body := g.do("GET", "/v1/turns?session=agent:echo:desk", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, 2, strings.Count(body, `"completed"`), "it is one session under one name")
}
