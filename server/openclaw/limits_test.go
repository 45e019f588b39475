package openclaw

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"gateway/internal/wire"
	"gateway/queue"
	"gateway/server/api"
)

// A client that fails at the first UNAVAILABLE must not be told so because its own runs take long.
func TestRunsThatTakeLongLeaveRoomForOtherRequests(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	w.Call("agent", `{"message":"block","idempotencyKey":"long"}`)
	for i := 1; i < maxAwaited; i++ {
		w.Write(fmt.Sprintf(`{"type":"req","id":"w%d","method":"agent","params":{"message":"block","idempotencyKey":"long"}}`, i))
		require.Equal(t, "accepted", w.Response(fmt.Sprintf("w%d", i))["payload"].(map[string]any)["status"])
	}
	for method, params := range map[string]string{"agent": `{"message":"more","idempotencyKey":"more"}`, "agent.wait": `{"runId":"long"}`} {
		e := wire.ErrorOf(t, w.Call(method, params))
		require.Equal(t, "UNAVAILABLE", e["code"], method)
		require.Contains(t, e["message"], "Try:", method)
	}
	require.Equal(t, true, w.Call("health", `{}`)["ok"])
	require.Equal(t, true, w.Call("chat.history", `{}`)["ok"])
	turns, err := g.backend.Queue.Turns(t.Context(), queue.Filter{})
	require.NoError(t, err)
	for _, one := range turns {
		require.NotEqual(t, "more", one.IdempotencyKey, "what was refused was not accepted")
	}
	close(g.agent.Release)
	for left := maxAwaited; left > 0; { // they come in any order
		if f := w.Read(); f["type"] == "res" {
			require.Equal(t, "ok", f["payload"].(map[string]any)["status"])
			left--
		}
	}
}

func TestRequestsThatComeFastAreAllAnswered(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	const many = 10 * maxRequests
	for i := range many {
		w.Write(fmt.Sprintf(`{"type":"req","id":"%d","method":"system-presence"}`, i))
	}
	missing := map[string]bool{}
	for i := range many {
		missing[fmt.Sprint(i)] = true
	}
	for len(missing) > 0 {
		f := w.Read()
		if f["type"] == "res" {
			require.Equal(t, true, f["ok"], f)
			delete(missing, f["id"].(string))
		}
	}
}

func TestAFrameAfterConnectMayBeLargeAndNoLarger(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	ask := func(size int) string {
		const head, tail = `{"type":"req","id":"1","method":"health","params":{"x":"`, `"}}`
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
	}
	w.Write(ask(maxFrame))
	require.Equal(t, true, w.Response("1")["ok"])
	w.Write(ask(maxFrame + 1))
	require.Equal(t, websocket.StatusMessageTooBig, w.Closed().Code)
}

// It would be cut off as one that reads slowly, each time that it asks.
func TestAHistoryIsNoLargerThanAClientCanTake(t *testing.T) {
	g := newGateway(t)
	g.backend.MaxInput = 1 << 20
	w := g.connect()
	long := strings.Repeat("x", 1<<19)
	for i := range 8 {
		w.Call("agent", fmt.Sprintf(`{"message":"%d %s","idempotencyKey":"k%d"}`, i, long, i))
		require.Equal(t, "ok", w.Response("1")["payload"].(map[string]any)["status"])
	}
	messages := func(limit int) []any {
		return w.Call("chat.history", fmt.Sprintf(`{"limit":%d}`, limit))["payload"].(map[string]any)["messages"].([]any)
	}
	text := func(m any) string {
		return m.(map[string]any)["content"].([]any)[0].(map[string]any)["text"].(string)
	}
	all := messages(api.MaxPage)
	require.Len(t, all, 12, "6 turns of a megabyte and a little are more than fits")
	require.Equal(t, "7", text(all[11])[:1])
	require.Equal(t, "2", text(all[0])[:1])
	one := messages(1)
	require.Len(t, one, 1)
	require.Equal(t, "assistant", one[0].(map[string]any)["role"])
}
