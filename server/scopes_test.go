package server

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/internal/wire"
	"gateway/server/api"
)

func bare() *Server { return New(Options{Log: zerolog.Nop()}) }

// needed are the scopes of all routes.
func needed() map[string]api.Scope {
	needs, routes := make(map[string]api.Scope), bare().routes()
	for pattern, r := range routes.gated {
		needs[pattern] = r.needs
	}
	for pattern, r := range routes.always {
		needs[pattern] = r.needs
	}
	return needs
}

// staff are three clients, each with one scope, besides who may do everything.
func staff() []api.Caller {
	return []api.Caller{
		api.NewCaller("", "token of all", api.Admin), api.NewCaller("monitor", "token that reads", api.Read),
		api.NewCaller("ci", "token that writes", api.Write), api.NewCaller("ops", "token that administers", api.ScopeOf("read", "admin")),
	}
}

var staffTokens = map[string]api.Scope{"token of all": api.Admin, "token that reads": api.Read, "token that writes": api.Write, "token that administers": api.Admin}

func TestEveryRouteNamesAScopeThatFitsItsMethod(t *testing.T) {
	open := []string{"GET /{$}", "GET /page/{file}", "GET /healthz", "GET /readyz"}
	for pattern, needs := range needed() {
		require.NotZero(t, needs, "%s names no scope, so nobody could ask for it", pattern)
		switch {
		case slices.Contains(open, pattern):
			require.Equal(t, api.Anyone, needs, pattern)
		case strings.HasPrefix(pattern, "GET "):
			require.GreaterOrEqual(t, needs, api.Read, pattern)
		default:
			require.GreaterOrEqual(t, needs, api.Write, "%s changes something", pattern)
		}
	}
}

func TestARouteWithoutAScopeIsClosedToAll(t *testing.T) {
	g, mux := newGateway(t), http.NewServeMux()
	mux.HandleFunc("GET /forgotten", func(http.ResponseWriter, *http.Request) { t.Error("it was served") })
	r := httptest.NewRequest(http.MethodGet, "/forgotten", nil)
	r.Host = "localhost"
	for _, r := range []*http.Request{r, r.WithContext(withTrusted(r.Context()))} {
		w := httptest.NewRecorder()
		g.guarded(mux, nil).ServeHTTP(w, r)
		require.Equal(t, http.StatusForbidden, w.Code)
	}
}

func TestTheDescriptionAndThePageOfTheAPIHaveTheScopeOfEveryRoute(t *testing.T) {
	text, err := os.ReadFile("../docs/http.md")
	require.NoError(t, err)
	wider := make(map[string]api.Scope) // than what its method lets one expect
	for _, row := range regexp.MustCompile("(?m)^\\| `(write|admin)` \\|.*$").FindAllStringSubmatch(string(text), -1) {
		for _, found := range regexp.MustCompile("`([A-Z]+ [^`]*)`").FindAllStringSubmatch(row[0], -1) {
			wider[found[1]] = api.ScopeOf(row[1])
		}
	}
	for pattern, needs := range needed() {
		require.Equal(t, needs.String(), description().Role(pattern), pattern)
		if needs > api.Read {
			require.Equal(t, needs, wider[pattern], pattern)
			delete(wider, pattern)
		}
	}
	require.Empty(t, wider)
}

// Every route is asked by every token over a real socket, with names of what is not there and bodies that say nothing,
// so that nothing comes of what is let through.
func TestAClientMayDoWhatItsScopesSayAndNoMore(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = staff()
	g.Publish(g.backend)
	names := regexp.MustCompile(`\{[a-z]+\}`)
	for _, pattern := range slices.Sorted(maps.Keys(needed())) {
		method, path, _ := strings.Cut(strings.Replace(pattern, "{$}", "", 1), " ")
		path = names.ReplaceAllString(path, "none")
		for token, scope := range staffTokens {
			methods := []string{method}
			if method == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
			for _, method := range methods {
				if method == http.MethodHead && path == "/v1/events" {
					continue // it does not end
				}
				body := ""
				if method != http.MethodGet && method != http.MethodHead && method != http.MethodDelete {
					body = "{}"
				}
				res := g.begin(method, path, body, "Authorization", "Bearer "+token)
				refused := res.StatusCode == http.StatusForbidden
				require.Equal(t, scope < needed()[pattern], refused, "%s %s: %d", pattern, token, res.StatusCode)
				require.NotEqual(t, http.StatusUnauthorized, res.StatusCode)
				if refused {
					require.Equal(t, fmt.Sprintf(`Bearer error="insufficient_scope", scope="%s"`, needed()[pattern]), res.Header.Get("WWW-Authenticate"))
				}
				require.NoError(t, res.Body.Close())
			}
		}
	}
}

func TestARefusalNamesTheScopeThatIsMissingAndWhatToTry(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = staff()
	g.Publish(g.backend)
	status, _, body := g.do("POST", "/v1/responses", `{"input":"hello"}`, "Authorization", "Bearer token that reads")
	require.Equal(t, http.StatusForbidden, status)
	require.JSONEq(t, `{"error":{"type":"permission_error","code":"insufficient_scope","param":null,
		"message":"this needs the scope write, and the token of the client monitor has only read. Try: auth.token, or add it to auth.clients.monitor.scopes, then gateway restart"}}`, body)
	_, _, body = g.do("GET", "/v1/turns", "", "Authorization", "Bearer token that reads")
	require.Empty(t, decode(t, body)["turns"], "nothing came of it")
	for path, want := range map[string]int{"/v1/nothing": http.StatusNotFound, "/v1/models": http.StatusMethodNotAllowed} {
		status, _, _ = g.do("POST", path, "{}", "Authorization", "Bearer token that reads")
		require.Equal(t, want, status, "what is not there asks for no scope")
	}
	status, _, _ = g.do("POST", "/v1/nothing", "{}", "Authorization", "Bearer nobody's")
	require.Equal(t, http.StatusUnauthorized, status, "but for a token")
}

func TestTheHistorySaysWhichClientAsked(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = staff()
	g.Publish(g.backend)
	for _, token := range []string{"token that administers", "token of all", "token that writes"} {
		_, _, _ = g.do("POST", "/v1/lifecycle/restart", "{}", "Authorization", "Bearer "+token)
	}
	_, _, _ = g.do("POST", "/v1/lifecycle/restart", `{"authorize_signal":true}`, "Authorization", "Bearer token that administers")
	w, _, err := g.dial(nil)
	require.NoError(t, err)
	require.Equal(t, true, w.Call("connect", strings.Replace(wire.PlainConnect, `"role"`, `"auth":{"token":"token that administers"},"role"`, 1))["ok"])
	require.Equal(t, true, w.Call("gateway.restart.request", "{}")["ok"])
	require.Equal(t, []fsm.Request{
		{Event: "restart", Actor: "api client ops 127.0.0.1"},
		{Event: "restart", Actor: "api 127.0.0.1"},
		{Event: "restart", Actor: "websocket client ops cli"},
	}, g.machine.asked)
	require.Equal(t, []string{"api client ops 127.0.0.1"}, g.machine.granted)
}

// A request that waits through a restart was let in by tokens that may be of the past.
func TestARequestThatWaitedIsJudgedByTheTokensOfThatTime(t *testing.T) {
	for name, c := range map[string]struct {
		next   []api.Caller
		status int
	}{
		"the same":                 {staff(), http.StatusOK},
		"a token that is no more":  {[]api.Caller{api.NewCaller("", "token of all", api.Admin)}, http.StatusUnauthorized},
		"a token that may less":    {[]api.Caller{api.NewCaller("ci", "token that writes", api.Read)}, http.StatusForbidden},
		"no tokens, by this name":  {nil, http.StatusOK},
		"another client's by name": {[]api.Caller{api.NewCaller("ci", "another token", api.Admin)}, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			g.callers = staff()
			g.backend.Callers = staff()
			g.Publish(g.backend)
			r, err := g.request("POST", "/v1/responses", `{"input":"block"}`, "Authorization", "Bearer token that writes")
			require.NoError(t, err)
			answered := make(chan int, 1)
			go func() {
				status := 0
				if res, err := g.http.Do(r); err == nil {
					status = res.StatusCode
					_ = res.Body.Close()
				}
				answered <- status
			}()
			g.began() // so it waits for its turn
			g.callers = c.next
			g.restart()
			close(g.agent.Release)
			require.Equal(t, c.status, <-answered)
		})
	}
}

// The successor judges what its predecessor hands on over the control socket, by its own tokens.
func TestARelayedRequestHasTheScopesOfItsToken(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = staff()
	g.Publish(g.backend)
	for token, want := range map[string]int{"": 401, "nobody's": 401, "token that writes": 403, "token that administers": 202} {
		r := httptest.NewRequest(http.MethodPost, "/v1/lifecycle/stop", nil)
		r = r.WithContext(withTrusted(r.Context()))
		r.Header.Set(relayedFor, "192.0.2.2:6")
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		g.Server.http.Handler.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, token)
	}
	require.Equal(t, []fsm.Request{{Event: "stop", Actor: "api client ops 192.0.2.2"}}, g.machine.asked)

	r := httptest.NewRequest(http.MethodPost, "/v1/lifecycle/stop", nil)
	w := httptest.NewRecorder()
	g.Server.http.Handler.ServeHTTP(w, r.WithContext(withTrusted(r.Context())))
	require.Equal(t, http.StatusAccepted, w.Code, "the control socket may do everything, without a token")
}

func TestEachTokenHasARateOfItsOwn(t *testing.T) {
	g := newGateway(t)
	b := *g.backend
	b.Limits, b.Callers = api.Limits{Rate: 1, Burst: 1}, staff()
	g.Publish(&b)
	for token := range staffTokens {
		status, _, _ := g.do("GET", "/v1/models", "", "Authorization", "Bearer "+token)
		require.Equal(t, http.StatusOK, status, token)
	}
	status, _, _ := g.do("POST", "/v1/lifecycle/stop", "", "Authorization", "Bearer token that reads")
	require.Equal(t, http.StatusTooManyRequests, status, "what a token may not do counts as well")
}

func TestScopesAreTheWidestOfTheirNames(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  api.Scope
	}{
		{nil, 0},
		{[]string{""}, 0},
		{[]string{"root"}, 0},
		{[]string{"read"}, api.Read},
		{[]string{"write", "read"}, api.Write},
		{[]string{"admin"}, api.Admin},
		{[]string{"read", "root"}, api.Read},
	} {
		require.Equal(t, c.want, api.ScopeOf(c.names...), c.names)
	}
	require.Nil(t, (&api.Backend{}).CallerWith(""))
	require.Error(t, (&api.Caller{Name: "x"}).May(api.Anyone), "who has no scope may nothing")
}
