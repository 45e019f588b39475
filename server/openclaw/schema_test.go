package openclaw

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/wire"
)

func TestWhatThereIsNoneOfIsSaid(t *testing.T) {
	w := newGateway(t).connect()
	ok := func(method, params string) any {
		f := w.Call(method, params)
		require.Equal(t, true, f["ok"], f)
		return f["payload"]
	}
	require.Equal(t, map[string]any{"enabled": false, "jobs": 0.0, "nextWakeAtMs": nil}, ok("cron.status", `{}`))
	require.Empty(t, ok("cron.list", `{"includeDisabled":false,"limit":200,"offset":0}`).(map[string]any)["jobs"])
	require.Empty(t, ok("node.list", `{}`).(map[string]any)["nodes"])
	require.Nil(t, ok("last-heartbeat", `{}`))
	require.Empty(t, ok("channels.status", `{"probe":true,"timeoutMs":1}`).(map[string]any)["channels"])
	require.Contains(t, wire.ErrorOf(t, w.Call("channels.status", `{"channel":"mail"}`))["message"], "unknown channel")
	require.Contains(t, wire.ErrorOf(t, w.Call("gateway.identity.get", `{}`))["message"], "no identity")
}

func TestTheGatewaySaysWhoItIs(t *testing.T) {
	g := newGateway(t)
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	g.backend.Identity = func() (ed25519.PublicKey, error) { return public, nil }
	id := sha256.Sum256(public)
	require.Equal(t, map[string]any{
		"deviceId": hex.EncodeToString(id[:]), "publicKey": base64.RawURLEncoding.EncodeToString(public),
	}, g.connect().Call("gateway.identity.get", `{}`)["payload"])
}
