// Package wire is a client of OpenClaw's protocol for tests, which reads like the protocol's page. Every frame that it
// reads is held to OpenClaw's own description, where that is installed.
package wire

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

const (
	// patience is how long a client waits for what must come.
	patience = time.Minute
	// MaxFrame is the size of the largest frame that a client reads, in bytes.
	MaxFrame = 26_214_400
)

// Client is a WebSocket client that reads like the protocol's page.
type Client struct {
	T      *testing.T
	Conn   *websocket.Conn
	Nonce  string
	seq    float64
	method string           // that was called last
	Events []map[string]any // that came while something else was waited for
}

// PlainConnect are the parameters of a client without a token that may do everything.
const PlainConnect = `{"minProtocol":4,"maxProtocol":4,"client":{"id":"cli","version":"1","platform":"linux","mode":"cli"},"role":"operator","scopes":["operator.admin"]}`

// Dial opens a connection to the server at the URL and reads the challenge. status is that of the HTTP answer.
func Dial(t *testing.T, url string, options *websocket.DialOptions) (w *Client, status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, answer, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(url, "http")+"/", options)
	if err != nil {
		return nil, answer.StatusCode, err
	}
	ws.SetReadLimit(MaxFrame)
	t.Cleanup(func() { _ = ws.CloseNow() })
	w = &Client{T: t, Conn: ws}
	f := w.Read()
	require.Equal(t, "connect.challenge", f["event"])
	w.Nonce = f["payload"].(map[string]any)["nonce"].(string)
	require.NotEmpty(t, w.Nonce)
	return w, answer.StatusCode, nil
}

// Connect is a client that was greeted.
func Connect(t *testing.T, url string) *Client {
	t.Helper()
	w, _, err := Dial(t, url, nil)
	require.NoError(t, err)
	hello := w.Call("connect", PlainConnect)
	require.Equal(t, true, hello["ok"], hello)
	return w
}

// Read returns the next frame.
func (w *Client) Read() map[string]any {
	w.T.Helper()
	f, err := w.TryRead()
	require.NoError(w.T, err)
	return f
}

// TryRead is Read for a connection that may end.
func (w *Client) TryRead() (f map[string]any, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := w.Conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	checkFrame(w.T, text, w.method)
	if seq, ok := f["seq"].(float64); ok {
		if seq != w.seq+1 {
			return nil, fmt.Errorf("event %v after %v", seq, w.seq)
		}
		w.seq = seq
	}
	return f, nil
}

// Write sends a frame.
func (w *Client) Write(text string) {
	w.T.Helper()
	require.NoError(w.T, w.Conn.Write(w.T.Context(), websocket.MessageText, []byte(text)))
}

// Call sends a request and returns its response.
func (w *Client) Call(method, params string) map[string]any {
	w.T.Helper()
	w.method = method
	defer func() { w.method = "" }()
	w.Write(fmt.Sprintf(`{"type":"req","id":"1","method":%q,"params":%s}`, method, params))
	return w.Response("1")
}

func (w *Client) Response(id string) map[string]any {
	w.T.Helper()
	for {
		f := w.Read()
		if f["type"] == "res" && f["id"] == id {
			return f
		}
		w.Events = append(w.Events, f)
	}
}

// Event waits for an event that fits.
func (w *Client) Event(name string, fits func(payload map[string]any) bool) map[string]any {
	w.T.Helper()
	for {
		var f map[string]any
		if len(w.Events) > 0 {
			f, w.Events = w.Events[0], w.Events[1:]
		} else {
			f = w.Read()
		}
		if payload, ok := f["payload"].(map[string]any); ok && f["event"] == name && fits(payload) {
			return payload
		}
	}
}

// Closed reads to the end of the connection and returns how it ended.
func (w *Client) Closed() websocket.CloseError {
	w.T.Helper()
	for {
		if _, err := w.TryRead(); err != nil {
			var end websocket.CloseError
			require.ErrorAs(w.T, err, &end)
			return end
		}
	}
}

func ErrorOf(t *testing.T, f map[string]any) map[string]any {
	t.Helper()
	require.Equal(t, false, f["ok"], f)
	return f["error"].(map[string]any)
}

func ConnectFrame(params string) string {
	return `{"type":"req","id":"c","method":"connect","params":` + params + `}`
}
