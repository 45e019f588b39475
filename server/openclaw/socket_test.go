package openclaw

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"gateway/internal/wire"
	"gateway/server/api"
)

func TestAClientIsGreetedWithAllThatTheProtocolPromises(t *testing.T) {
	g := newGateway(t)
	w, _, err := g.dial(nil)
	require.NoError(t, err)
	hello := w.Call("connect", `{"minProtocol":3,"maxProtocol":4,"client":{"id":"cli","version":"2026.9.6","platform":"linux","deviceFamily":"Linux","mode":"cli","instanceId":"i"},"caps":[],"auth":{"token":"unneeded"},"role":"operator","scopes":["operator.read"],"locale":"en","userAgent":"x"}`)
	require.Equal(t, true, hello["ok"], hello)
	payload := hello["payload"].(map[string]any)
	require.Equal(t, "hello-ok", payload["type"])
	require.InDelta(t, 4, payload["protocol"], 0)
	require.Equal(t, []any{"operator.read"}, payload["auth"].(map[string]any)["scopes"])
	policy := payload["policy"].(map[string]any)
	require.Equal(t, map[string]any{"maxPayload": 26214400.0, "maxBufferedBytes": 52428800.0, "tickIntervalMs": 30000.0}, policy)
	for _, part := range []string{"server", "snapshot", "features"} {
		require.NotEmpty(t, payload[part], part)
	}
	features := payload["features"].(map[string]any)
	for _, name := range features["methods"].([]any) {
		f := w.Call(name.(string), `{}`)
		if f["ok"] == false {
			require.NotContains(t, wire.ErrorOf(t, f)["message"], "unknown method", name)
		}
	}
	forbidden := wire.ErrorOf(t, w.Call("chat.send", `{"message":"x","idempotencyKey":"k"}`))
	require.Equal(t, "FORBIDDEN", forbidden["code"])
	require.Equal(t, "operator.write", forbidden["details"].(map[string]any)["missingScope"])
}

func TestAFrameThatBreaksARuleGetsTheDocumentedError(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = []api.Caller{api.NewCaller("", "secret", api.Admin)}
	connect := func(more string) string { return strings.Replace(wire.PlainConnect, `"role"`, more+`,"role"`, 1) }
	for name, c := range map[string]struct {
		first         string
		code, message string
		detail        string
		close         websocket.StatusCode
	}{
		"not connect":         {`{"type":"req","id":"1","method":"health"}`, "INVALID_REQUEST", "first request must be connect", "", 1008},
		"not a frame":         {`hello`, "INVALID_REQUEST", "first request must be connect", "", 1008},
		"no token":            {wire.ConnectFrame(wire.PlainConnect), "NOT_PAIRED", "device identity required", "DEVICE_IDENTITY_REQUIRED", 1008},
		"wrong token":         {wire.ConnectFrame(connect(`"auth":{"token":"guess"}`)), "INVALID_REQUEST", "token mismatch", "AUTH_TOKEN_MISMATCH", 1008},
		"too new":             {wire.ConnectFrame(strings.NewReplacer(`"minProtocol":4`, `"minProtocol":5`, `"maxProtocol":4`, `"maxProtocol":6`).Replace(wire.PlainConnect)), "INVALID_REQUEST", "protocol mismatch", "PROTOCOL_MISMATCH", 1002},
		"too old":             {wire.ConnectFrame(strings.NewReplacer(`"minProtocol":4`, `"minProtocol":1`, `"maxProtocol":4`, `"maxProtocol":2`).Replace(wire.PlainConnect)), "INVALID_REQUEST", "protocol mismatch", "PROTOCOL_MISMATCH", 1002},
		"unknown property":    {wire.ConnectFrame(connect(`"colour":"red"`)), "INVALID_REQUEST", "colour", "", 1008},
		"unknown in client":   {wire.ConnectFrame(strings.Replace(wire.PlainConnect, `"id":"cli"`, `"id":"cli","age":1`, 1)), "INVALID_REQUEST", "client.age", "", 1008},
		"a client without id": {wire.ConnectFrame(strings.Replace(wire.PlainConnect, `"id":"cli",`, ``, 1)), "INVALID_REQUEST", "client.id", "", 1008},
		"a node":              {wire.ConnectFrame(strings.Replace(wire.PlainConnect, `"role":"operator"`, `"role":"node"`, 1)), "INVALID_REQUEST", "role", "", 1008},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, err := g.dial(nil)
			require.NoError(t, err)
			w.Write(c.first)
			f := w.Read()
			e := wire.ErrorOf(t, f)
			require.Equal(t, c.code, e["code"])
			require.Contains(t, e["message"], c.message)
			require.NotContains(t, fmt.Sprint(e), "secret")
			if c.detail != "" {
				require.Equal(t, c.detail, e["details"].(map[string]any)["code"])
			}
			require.Equal(t, c.close, w.Closed().Code)
		})
	}
	w, _, err := g.dial(nil)
	require.NoError(t, err)
	require.Equal(t, true, w.Call("connect", connect(`"auth":{"token":"secret"}`))["ok"])
	for name, c := range map[string]struct{ frame, id, message string }{
		"connect again":  {wire.ConnectFrame(wire.PlainConnect), "c", "connect is only valid as the first request"},
		"unknown method": {`{"type":"req","id":"x","method":"nope"}`, "x", "unknown method: nope"},
		"no id":          {`{"type":"req","method":"health"}`, "invalid", "invalid request frame"},
		"an event":       {`{"type":"event","event":"tick"}`, "invalid", "invalid request frame"},
		"more":           {`{"type":"req","id":"x","method":"health","more":1}`, "invalid", "invalid request frame"},
		"not JSON":       {`{`, "invalid", "invalid request frame"},
		"params a list":  {`{"type":"req","id":"x","method":"chat.send","params":[]}`, "x", "not an object"},
		"no message":     {`{"type":"req","id":"x","method":"chat.send","params":{"idempotencyKey":"k"}}`, "x", "message is empty"},
		"no key":         {`{"type":"req","id":"x","method":"chat.send","params":{"message":"m"}}`, "x", "idempotencyKey"},
		"another param":  {`{"type":"req","id":"x","method":"chat.send","params":{"message":"m","idempotencyKey":"k","attachments":[1]}}`, "x", "attachments"},
		"no such agent":  {`{"type":"req","id":"x","method":"agent","params":{"message":"m","idempotencyKey":"k","agentId":"nobody"}}`, "x", "nobody"},
	} {
		w.Write(c.frame)
		e := wire.ErrorOf(t, w.Response(c.id))
		require.Equal(t, "INVALID_REQUEST", e["code"], name)
		require.Contains(t, e["message"], c.message, name)
	}
	require.Equal(t, true, w.Call("health", `{}`)["ok"], "it stayed open")
}

func TestALargeFrameEndsTheConnection(t *testing.T) {
	g := newGateway(t)
	w, _, err := g.dial(nil)
	require.NoError(t, err)
	w.Write(`{"type":"req","id":"1","method":"connect","params":{"userAgent":"` + strings.Repeat("x", maxFrameBefore) + `"}}`)
	require.Equal(t, websocket.StatusMessageTooBig, w.Closed().Code)
}

func TestADeviceThatSignsIsVerified(t *testing.T) {
	g := newGateway(t)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	id := sha256.Sum256(public)
	for name, c := range map[string]struct {
		nonce string
		at    time.Duration
		spoil bool
		want  string
	}{
		"signed": {}, "another nonce": {nonce: "x", want: "device nonce mismatch"},
		"long ago": {at: -time.Hour, want: "device signature expired"}, "forged": {spoil: true, want: "device signature invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, err := g.dial(nil)
			require.NoError(t, err)
			nonce, at := w.Nonce, time.Now().Add(c.at).UnixMilli()
			if c.nonce != "" {
				nonce = c.nonce
			}
			text := fmt.Sprintf("v3|%s|cli|cli|operator|operator.admin|%d||%s|linux|", hex.EncodeToString(id[:]), at, nonce)
			if c.spoil {
				text += "x"
			}
			signed := fmt.Sprintf(`"device":{"id":%q,"publicKey":%q,"signature":%q,"signedAt":%d,"nonce":%q},"role"`,
				hex.EncodeToString(id[:]), base64.RawURLEncoding.EncodeToString(public),
				base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(text))), at, nonce)
			f := w.Call("connect", strings.Replace(wire.PlainConnect, `"role"`, signed, 1))
			if c.want == "" {
				require.Equal(t, true, f["ok"], f)
				return
			}
			require.Equal(t, c.want, wire.ErrorOf(t, f)["message"])
			require.Equal(t, websocket.StatusPolicyViolation, w.Closed().Code)
		})
	}
}

func TestAnAgentsRunIsAnsweredTwice(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	accepted := w.Call("agent", `{"message":"hello","idempotencyKey":"run-2","deliver":false,"timeout":600}`)["payload"].(map[string]any)
	require.Equal(t, "accepted", accepted["status"])
	require.Equal(t, "run-2", accepted["runId"])
	done := w.Response("1")["payload"].(map[string]any)
	require.Equal(t, "ok", done["status"])
	require.Equal(t, "hello", done["result"].(map[string]any)["payloads"].([]any)[0].(map[string]any)["text"])

	w.Call("agent", `{"message":"fail","idempotencyKey":"run-3"}`)
	require.Equal(t, "error", w.Response("1")["payload"].(map[string]any)["status"])
	w.Call("agent", `{"message":"block","idempotencyKey":"run-4","timeout":0.02}`)
	require.Equal(t, "AGENT_TIMEOUT", wire.ErrorOf(t, w.Response("1"))["code"])
	require.Equal(t, "timeout", w.Call("agent.wait", `{"runId":"run-4","timeoutMs":1}`)["payload"].(map[string]any)["status"])
	aborted := w.Call("chat.abort", `{"sessionKey":"main","runId":"run-4"}`)["payload"].(map[string]any)
	require.Equal(t, []any{"run-4"}, aborted["runIds"])
	w.Event("chat", func(p map[string]any) bool { return p["state"] == "aborted" && p["runId"] == "run-4" })
	require.Equal(t, false, w.Call("chat.abort", `{"sessionKey":"main"}`)["payload"].(map[string]any)["aborted"])
}

// It is what makes unmodified clients try again by themselves.
func TestAClientThatConnectsWhileTheGatewayRetiresIsToldToTryAgain(t *testing.T) {
	g := newGateway(t)
	w, _, err := g.dial(nil)
	require.NoError(t, err)
	g.Retire(api.Notice{Reason: "gateway restarting"})
	e := wire.ErrorOf(t, w.Call("connect", wire.PlainConnect))
	require.Equal(t, "UNAVAILABLE", e["code"])
	require.Equal(t, "startup-sidecars", e["details"].(map[string]any)["reason"])
	require.InDelta(t, 500, e["retryAfterMs"], 0)
	require.Equal(t, websocket.StatusTryAgainLater, w.Closed().Code)
}

// A client that does not read is closed, and slows neither the agent nor anybody else.
func TestAClientThatDoesNotReadIsClosed(t *testing.T) {
	g := newGateway(t)
	deaf := g.connect()
	var slow *socket
	require.Eventually(t, func() bool {
		for _, c := range g.hub.connected() {
			slow = c
		}
		return slow != nil
	}, time.Minute, time.Millisecond)
	payload := strings.Repeat("x", 1<<20)
	for range 2 * maxBuffered >> 20 {
		slow.event("health", payload)
	}
	select {
	case <-slow.ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("it was not closed")
	}
	require.Equal(t, true, g.connect().Call("health", `{}`)["ok"])
	for {
		if _, err := deaf.TryRead(); err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			return
		}
	}
}

func TestAClientKnowsWhoElseIsThere(t *testing.T) {
	g := newGateway(t)
	first := g.connect()
	second := g.connect()
	first.Event("presence", func(p map[string]any) bool { return len(p["presence"].([]any)) == 2 })
	require.NoError(t, second.Conn.Close(websocket.StatusNormalClosure, ""))
	first.Event("presence", func(p map[string]any) bool { return len(p["presence"].([]any)) == 1 })
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"type":"req","id":"1","method":"connect","params":` + wire.PlainConnect + `}`))
	f.Add([]byte(`{"type":"req","id":"1","method":"health"}`))
	f.Add([]byte(`{"type":"res","id":"1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		frame, err := parseFrame(true, text)
		if err != nil {
			require.ErrorIs(t, err, errNotAFrame)
			return
		}
		if _, err := parseConnect(frame.Params); err != nil {
			require.NotEmpty(t, api.Explain(err).Message)
		}
	})
}
