package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// wsClient is a WebSocket client that was greeted.
type wsClient struct {
	t  *testing.T
	ws *websocket.Conn
}

type wsFrame struct {
	Type, ID, Event string
	OK              bool
	Payload         struct {
		RunID, SessionKey, State, Status, Stream, DeltaText string
		Replace                                             bool
		Seq                                                 int64
		Data                                                struct{ Phase string }
	}
}

func dialWebSocket(t *testing.T, address, token string) *wsClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+address+"/", nil) //nolint:bodyclose // it is the connection
	require.NoError(t, err)
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	c := &wsClient{t, ws}
	c.event(func(f wsFrame) bool { return f.Event == "connect.challenge" })
	require.True(t, c.call("connect", fmt.Sprintf(`{"minProtocol":4,"maxProtocol":4,
		"client":{"id":"test","version":"1","platform":"linux","mode":"test"},"auth":{"token":%q}}`, token)).OK)
	return c
}

func (c *wsClient) read() (f wsFrame, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	_, text, err := c.ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	return f, err
}

// event reads until a frame fits, and puts the others aside.
func (c *wsClient) event(fits func(wsFrame) bool) wsFrame {
	c.t.Helper()
	for {
		f, err := c.read()
		require.NoError(c.t, err)
		if fits(f) {
			return f
		}
	}
}

func (c *wsClient) call(method, params string) wsFrame {
	c.t.Helper()
	request := fmt.Sprintf(`{"type":"req","id":%q,"method":%q,"params":%s}`, method, method, params)
	require.NoError(c.t, c.ws.Write(c.t.Context(), websocket.MessageText, []byte(request)))
	return c.event(func(f wsFrame) bool { return f.Type == "res" && f.ID == method })
}

// A restart closes a WebSocket that streams. Its client continues after its last event: it sees each event once, and the
// text of the last attempt.
func TestAWebSocketThatARestartCutsOffSeesEachEventOnce(t *testing.T) {
	for _, mode := range cutModes {
		t.Run(mode, func(t *testing.T) {
			h, base, open := newOpenAIHouse(t, "lifecycle: { respawn: "+mode+" }")
			at, err := url.Parse(base)
			require.NoError(t, err)
			var text strings.Builder
			var moments []string
			seen := map[string]int64{}
			take := func(f wsFrame) (ended bool) {
				p := f.Payload
				if p.Seq <= seen[f.Event] {
					return false
				}
				seen[f.Event] = p.Seq
				switch {
				case f.Event == "agent" && p.Stream == "lifecycle":
					moments = append(moments, p.Data.Phase)
				case f.Event == "chat":
					if p.Replace {
						text.Reset()
					}
					text.WriteString(p.DeltaText)
				}
				return f.Event == "chat" && p.State != "delta"
			}
			c := dialWebSocket(t, at.Host, openaiToken)
			require.True(t, c.call("chat.send", `{"sessionKey":"agent:gated:desk","message":"x","idempotencyKey":"run"}`).OK)
			for cut := false; ; {
				f, err := c.read()
				if err != nil {
					require.Equal(t, websocket.StatusServiceRestart, websocket.CloseStatus(err), "%v", err)
					break
				}
				require.False(t, take(f))
				if !cut && strings.Contains(text.String(), "halfway") {
					cut = true
					_, refused, code := h.gateway("restart", "--force")
					require.Zero(t, code, refused)
					open()
				}
			}
			c = dialWebSocket(t, at.Host, openaiToken)
			answer := c.call("chat.resume", fmt.Sprintf(`{"runId":"run","afterSeq":%d}`, min(seen["agent"], seen["chat"])))
			require.True(t, answer.OK)
			for {
				f, err := c.read()
				require.NoError(t, err)
				if take(f) {
					break
				}
			}
			require.Equal(t, gatedText(), strings.TrimSuffix(text.String(), "\n"))
			require.Equal(t, []string{"start", "interrupted", "start", "end"}, moments)
		})
	}
}
