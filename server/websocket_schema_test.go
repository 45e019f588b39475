package server

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// wireSchema is OpenClaw's own description of its protocol, which the frames of all tests are held to where it is
// installed.
var wireSchema = sync.OnceValue(func() *jsonschema.Compiler {
	text, err := os.ReadFile("../cmd/gateway/testdata/openclaw/node_modules/@openclaw/gateway-protocol/protocol.schema.json")
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("CI") == "" {
		return nil
	}
	if err != nil {
		panic(fmt.Errorf("%w. Try: make deps-clients", err))
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	c.UseRegexpEngine(func(pattern string) (jsonschema.Regexp, error) {
		if known, err := regexp.Compile(pattern); err == nil {
			return known, nil
		}
		return anything{}, nil // what only JavaScript knows is in none of the frames here
	})
	if err := c.AddResource(wireSchemaURL, document); err != nil {
		panic(err)
	}
	return c
})

type anything struct{}

func (anything) MatchString(string) bool { return true }
func (anything) String() string          { return "" }

const wireSchemaURL = "https://openclaw.ai/protocol.schema.json"

var (
	wireEvents = map[string]string{
		"agent": "AgentEvent", "chat": "ChatEvent", "tick": "TickEvent", "shutdown": "ShutdownEvent",
	}
	wireResults = map[string]string{
		"connect": "HelloOk", "agents.list": "AgentsListResult", "channels.status": "ChannelsStatusResult",
	}
	wireLock sync.Mutex // a compiler keeps what it has compiled
)

// checkFrame holds a frame that the server sent to the protocol; method is what it answers, if that is known.
func checkFrame(t *testing.T, text []byte, method string) {
	t.Helper()
	if wireSchema() == nil {
		return
	}
	decoded, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	f := decoded.(map[string]any)
	hold := func(name string, to any) {
		wireLock.Lock()
		defer wireLock.Unlock()
		schema, err := wireSchema().Compile(wireSchemaURL + "#/definitions/" + name)
		require.NoError(t, err)
		require.NoError(t, schema.Validate(to), "%s", text)
	}
	switch f["type"] {
	case "event":
		hold("EventFrame", f)
		event := f["event"].(string)
		payload, _ := f["payload"].(map[string]any)
		if event == "agent" { // what it is sent with in practice, and the description does not know
			delete(payload, "agentId")
			delete(payload, "sessionKey")
		}
		if name := wireEvents[event]; name != "" {
			hold(name, payload)
		}
		if event == "presence" {
			for _, one := range payload["presence"].([]any) {
				hold("PresenceEntry", one)
			}
		}
	case "res":
		hold("ResponseFrame", f)
		if name := wireResults[method]; name != "" && f["ok"] == true {
			if method == methodConnect {
				auth := f["payload"].(map[string]any)["auth"].(map[string]any)
				require.Contains(t, []any{"none", "token"}, auth["method"])
				delete(auth, "method") // newer than this description
			}
			hold(name, f["payload"])
		}
	default:
		require.Fail(t, "neither event nor response", "%s", text)
	}
}

func TestWhatThereIsNoneOfIsSaid(t *testing.T) {
	w := newGateway(t).connect()
	ok := func(method, params string) any {
		f := w.call(method, params)
		require.Equal(t, true, f["ok"], f)
		return f["payload"]
	}
	require.Equal(t, map[string]any{"enabled": false, "jobs": 0.0, "nextWakeAtMs": nil}, ok("cron.status", `{}`))
	require.Empty(t, ok("cron.list", `{"includeDisabled":false,"limit":200,"offset":0}`).(map[string]any)["jobs"])
	require.Empty(t, ok("node.list", `{}`).(map[string]any)["nodes"])
	require.Nil(t, ok("last-heartbeat", `{}`))
	require.Empty(t, ok("channels.status", `{"probe":true,"timeoutMs":1}`).(map[string]any)["channels"])
	require.Contains(t, errorOf(t, w.call("channels.status", `{"channel":"mail"}`))["message"], "unknown channel")
	require.Contains(t, errorOf(t, w.call("gateway.identity.get", `{}`))["message"], "no identity")
}

func TestTheGatewaySaysWhoItIs(t *testing.T) {
	g := newGateway(t)
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	g.backend.Identity = func() (ed25519.PublicKey, error) { return public, nil }
	id := sha256.Sum256(public)
	require.Equal(t, map[string]any{
		"deviceId": hex.EncodeToString(id[:]), "publicKey": base64.RawURLEncoding.EncodeToString(public),
	}, g.connect().call("gateway.identity.get", `{}`)["payload"])
}
