package openclaw

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"gateway/internal/wire"
	"gateway/server/api"
)

func TestAWebSocketGetsWhatItAsksForAsFarAsItsTokenAllows(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = staff()
	g.Publish(g.backend)
	const read, write, admin = "operator.read", "operator.write", "operator.admin"
	for name, c := range map[string]struct {
		token, asked string
		want         []any
	}{
		"all asks for all":            {"token of all", `["operator.admin"]`, []any{admin}},
		"all asks for less":           {"token of all", `["operator.read"]`, []any{read}},
		"all does not say":            {"token of all", "", []any{read, write}},
		"admin in another order":      {"token that administers", `["operator.admin","operator.read"]`, []any{read, admin}},
		"a writer asks for all":       {"token that writes", `["operator.admin"]`, []any{read, write}},
		"a writer asks for each":      {"token that writes", `["operator.read","operator.write","operator.admin"]`, []any{read, write}},
		"a writer asks to write":      {"token that writes", `["operator.write"]`, []any{write}},
		"a writer asks to read":       {"token that writes", `["operator.read"]`, []any{read}},
		"a writer does not say":       {"token that writes", "", []any{read, write}},
		"a reader asks for all":       {"token that reads", `["operator.admin"]`, []any{read}},
		"a reader asks to write":      {"token that reads", `["operator.write"]`, []any{read}},
		"a reader does not say":       {"token that reads", "", []any{read}},
		"a reader asks for nothing":   {"token that reads", `[]`, []any{}},
		"a scope that nobody defined": {"token of all", `["operator.pairing"]`, []any{}},
	} {
		t.Run(name, func(t *testing.T) {
			connect := strings.Replace(wire.PlainConnect, `"scopes":["operator.admin"]`, `"auth":{"token":"`+c.token+`"},"scopes":`+c.asked, 1)
			if c.asked == "" {
				connect = strings.Replace(connect, `,"scopes":`, "", 1)
			}
			w, _, err := g.dial(nil)
			require.NoError(t, err)
			hello := w.Call("connect", connect)
			require.Equal(t, true, hello["ok"], hello)
			require.Equal(t, c.want, hello["payload"].(map[string]any)["auth"].(map[string]any)["scopes"])
			var widest api.Scope
			for _, scope := range c.want {
				widest = max(widest, api.ScopeOf(strings.TrimPrefix(scope.(string), "operator.")))
			}
			for method, params := range map[string]string{"health": "{}", "chat.abort": `{"sessionKey":"main"}`, "gateway.restart.request": "{}"} {
				f := w.Call(method, params)
				if needs := methods[method].scope; widest < needs {
					e := wire.ErrorOf(t, f)
					require.Equal(t, "FORBIDDEN", e["code"], method)
					require.Equal(t, map[string]any{"code": "MISSING_SCOPE", "missingScope": operatorScope(needs), "requiredScopes": []any{operatorScope(needs)}}, e["details"])
				} else {
					require.Equal(t, true, f["ok"], f)
				}
			}
		})
	}
	w, _, err := g.dial(&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer token that reads"}}})
	require.NoError(t, err)
	hello := w.Call("connect", wire.PlainConnect)
	require.Equal(t, []any{read}, hello["payload"].(map[string]any)["auth"].(map[string]any)["scopes"], "the token may come as a header too")
}

func TestEveryMethodOfTheWebSocketNamesAScope(t *testing.T) {
	for name, m := range methods {
		require.GreaterOrEqual(t, m.scope, api.Read, name)
	}
}
