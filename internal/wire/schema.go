package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// schema is OpenClaw's own description of its protocol, which the frames of all tests are held to where it is
// installed.
var schema = sync.OnceValue(func() *jsonschema.Compiler {
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../cmd/gateway/testdata/openclaw/node_modules/@openclaw/gateway-protocol/protocol.schema.json"))
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
	if err := c.AddResource(schemaURL, document); err != nil {
		panic(err)
	}
	return c
})

type anything struct{}

func (anything) MatchString(string) bool { return true }

func (anything) String() string { return "" }

const schemaURL = "https://openclaw.ai/protocol.schema.json"

var (
	eventSchemas = map[string]string{
		"agent": "AgentEvent", "chat": "ChatEvent", "tick": "TickEvent", "shutdown": "ShutdownEvent",
	}
	resultSchemas = map[string]string{
		"connect": "HelloOk", "agents.list": "AgentsListResult", "channels.status": "ChannelsStatusResult",
	}
	schemaLock sync.Mutex // a compiler keeps what it has compiled
)

// checkFrame holds a frame that the server sent to the protocol; method is what it answers, if that is known.
func checkFrame(t *testing.T, text []byte, method string) {
	t.Helper()
	if schema() == nil {
		return
	}
	decoded, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	f := decoded.(map[string]any)
	hold := func(name string, to any) {
		schemaLock.Lock()
		defer schemaLock.Unlock()
		schema, err := schema().Compile(schemaURL + "#/definitions/" + name)
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
		if name := eventSchemas[event]; name != "" {
			hold(name, payload)
		}
		if event == "presence" {
			for _, one := range payload["presence"].([]any) {
				hold("PresenceEntry", one)
			}
		}
	case "res":
		hold("ResponseFrame", f)
		if name := resultSchemas[method]; name != "" && f["ok"] == true {
			if method == "connect" {
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
