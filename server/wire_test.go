package server

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
	// wirePatience is how long a client waits for what must come.
	wirePatience = time.Minute
	wireFrame    = 26_214_400 // bytes of a frame that a client reads
)

// wire is a WebSocket client that reads like the protocol's page.
type wire struct {
	t      *testing.T
	ws     *websocket.Conn
	nonce  string
	seq    float64
	method string           // that was called last
	events []map[string]any // that came while something else was waited for
}

const plainConnect = `{"minProtocol":4,"maxProtocol":4,"client":{"id":"cli","version":"1","platform":"linux","mode":"cli"},"role":"operator","scopes":["operator.admin"]}`

// dialWire opens a connection to the server at the URL and reads the challenge. status is that of the HTTP answer.
func dialWire(t *testing.T, url string, options *websocket.DialOptions) (w *wire, status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wirePatience)
	defer cancel()
	ws, answer, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(url, "http")+"/", options) //nolint:bodyclose // Dial has read it
	if err != nil {
		return nil, answer.StatusCode, err
	}
	ws.SetReadLimit(wireFrame)
	t.Cleanup(func() { _ = ws.CloseNow() })
	w = &wire{t: t, ws: ws}
	f := w.read()
	require.Equal(t, "connect.challenge", f["event"])
	w.nonce = f["payload"].(map[string]any)["nonce"].(string)
	require.NotEmpty(t, w.nonce)
	return w, answer.StatusCode, nil
}

// connectWire is a client that was greeted.
func connectWire(t *testing.T, url string) *wire {
	t.Helper()
	w, _, err := dialWire(t, url, nil)
	require.NoError(t, err)
	hello := w.call("connect", plainConnect)
	require.Equal(t, true, hello["ok"], hello)
	return w
}

func (w *wire) read() map[string]any {
	w.t.Helper()
	f, err := w.tryRead()
	require.NoError(w.t, err)
	return f
}

func (w *wire) tryRead() (f map[string]any, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), wirePatience)
	defer cancel()
	_, text, err := w.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	checkFrame(w.t, text, w.method)
	if seq, ok := f["seq"].(float64); ok {
		if seq != w.seq+1 {
			return nil, fmt.Errorf("event %v after %v", seq, w.seq)
		}
		w.seq = seq
	}
	return f, nil
}

func (w *wire) write(text string) {
	w.t.Helper()
	require.NoError(w.t, w.ws.Write(w.t.Context(), websocket.MessageText, []byte(text)))
}

// call sends a request and returns its response.
func (w *wire) call(method, params string) map[string]any {
	w.t.Helper()
	w.method = method
	defer func() { w.method = "" }()
	w.write(fmt.Sprintf(`{"type":"req","id":"1","method":%q,"params":%s}`, method, params))
	return w.response("1")
}

func (w *wire) response(id string) map[string]any {
	w.t.Helper()
	for {
		f := w.read()
		if f["type"] == "res" && f["id"] == id {
			return f
		}
		w.events = append(w.events, f)
	}
}

// event waits for an event that fits.
func (w *wire) event(name string, fits func(payload map[string]any) bool) map[string]any {
	w.t.Helper()
	for {
		var f map[string]any
		if len(w.events) > 0 {
			f, w.events = w.events[0], w.events[1:]
		} else {
			f = w.read()
		}
		if payload, ok := f["payload"].(map[string]any); ok && f["event"] == name && fits(payload) {
			return payload
		}
	}
}

// closed reads to the end of the connection and returns how it ended.
func (w *wire) closed() websocket.CloseError {
	w.t.Helper()
	for {
		if _, err := w.tryRead(); err != nil {
			var end websocket.CloseError
			require.ErrorAs(w.t, err, &end)
			return end
		}
	}
}

func errorOf(t *testing.T, f map[string]any) map[string]any {
	t.Helper()
	require.Equal(t, false, f["ok"], f)
	return f["error"].(map[string]any)
}

func connectFrame(params string) string {
	return `{"type":"req","id":"c","method":"connect","params":` + params + `}`
}
