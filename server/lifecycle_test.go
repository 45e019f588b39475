package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/server/api"
)

func TestHealthIsAlwaysAndReadinessWhileTurnsStart(t *testing.T) {
	g := newGateway(t)
	for _, now := range []struct {
		state fsm.State
		ready bool
	}{
		{fsm.Starting, false},
		{fsm.Running, true},
		{fsm.Draining, true},
		{fsm.Draining, false},
		{fsm.ShuttingDown, false},
		{fsm.Respawning, false},
	} {
		g.machine.move(now.state, now.ready)
		status, _, body := g.do("GET", "/healthz", "")
		require.Equal(t, http.StatusOK, status)
		require.JSONEq(t, `{"status":"ok"}`, body)
		status, header, body := g.do("GET", "/readyz", "")
		require.JSONEq(t, `{"state":"`+string(now.state)+`"}`, body)
		if now.ready {
			require.Equal(t, http.StatusOK, status)
			continue
		}
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, "1", header.Get("Retry-After"))
	}
}

func TestTheLifecycleIsShownWithItsHistory(t *testing.T) {
	g := newGateway(t)
	g.machine.move(fsm.Draining, false)
	g.machine.set(fsm.Held) // it needs no Backend
	_, _, body := g.do("GET", "/v1/lifecycle", "")
	require.JSONEq(t, `{"state":"Draining","generation":0,"history":[`+hop(1, "", "Running")+","+hop(2, "Running", "Draining")+`]}`, body)
	_, _, body = g.do("GET", "/v1/lifecycle?after=2", "")
	require.JSONEq(t, `{"state":"Draining","generation":0,"history":[]}`, body)
}

// hop is a hop of the test's machine as the API writes it.
func hop(seq int, from, to string) string {
	return fmt.Sprintf(`{"seq":%d,"boot_id":"","generation":0,"time":"0001-01-01T00:00:00Z","from":%q,"event":"","to":%q,"reason":"","actor":"","lasted_ms":0}`, seq, from, to)
}

func TestHopsAreSeenLiveUntilTheStreamsMustEnd(t *testing.T) {
	g := newGateway(t)
	res := g.begin("GET", "/v1/lifecycle", "", "Accept", "text/event-stream", "Last-Event-ID", "1")
	defer func() { require.NoError(t, res.Body.Close()) }()
	g.machine.move(fsm.Draining, false)
	g.machine.move(fsm.ShuttingDown, false)
	g.Retire(api.Notice{Reason: "gateway stopping"})
	events := strings.Split(strings.TrimSpace(readAll(t, res)), "\n\n")
	require.Len(t, events, 4)
	require.True(t, strings.HasPrefix(events[0], "event: status\n"))
	require.Equal(t, "id: 2\nevent: hop\ndata: "+hop(2, "Running", "Draining"), events[1])
	require.Equal(t, "id: 3\nevent: hop\ndata: "+hop(3, "Draining", "ShuttingDown"), events[2])
	require.Equal(t, "event: shutdown\ndata: {\"reason\":\"gateway stopping\",\"restart_expected_ms\":null}", events[3])
}

func TestARequestToTheMachineIsAnsweredWithItsDecision(t *testing.T) {
	g := newGateway(t)
	status, _, body := g.do("POST", "/v1/lifecycle/restart", `{"reason":"new version","turn":"t1"}`)
	require.Equal(t, http.StatusAccepted, status)
	require.JSONEq(t, `{"outcome":"accepted","state":"Draining","message":"restarting","hop":2}`, body)
	status, _, _ = g.do("POST", "/v1/lifecycle/stop", "")
	require.Equal(t, http.StatusAccepted, status)
	status, _, _ = g.do("POST", "/v1/lifecycle/resume", "{}")
	require.Equal(t, http.StatusAccepted, status)
	require.Equal(t, []fsm.Request{
		{Event: "restart", Actor: "api 127.0.0.1", Reason: "new version", Turn: "t1"},
		{Event: "stop", Actor: "api 127.0.0.1"},
		{Event: "resume", Actor: "api 127.0.0.1"},
	}, g.machine.asked)

	r := httptest.NewRequest(http.MethodPost, "/", nil)
	require.Equal(t, "local", actor(r.WithContext(withTrusted(r.Context()))))
}

func TestAnAuthorisationIsOnlyGranted(t *testing.T) {
	g := newGateway(t)
	status, _, body := g.do("POST", "/v1/lifecycle/restart", `{"authorize_signal":true}`)
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"authorized":true}`, body)
	require.Equal(t, []string{"api 127.0.0.1"}, g.machine.granted)
	require.Empty(t, g.machine.asked)
}

func TestARequestToTheMachineIsChecked(t *testing.T) {
	g := newGateway(t)
	for name, c := range map[string]struct {
		path, body, param string
	}{
		"reason too long":  {"restart", `{"reason":"` + strings.Repeat("a", api.MaxReason+1) + `"}`, "reason"},
		"reason, two line": {"restart", `{"reason":"a\nb"}`, "reason"},
		"turn too long":    {"restart", `{"turn":"` + strings.Repeat("a", api.MaxID+1) + `"}`, "turn"},
		"unknown":          {"stop", `{"force":true}`, "force"},
		"a stop by signal": {"stop", `{"authorize_signal":true}`, "authorize_signal"},
	} {
		status, _, body := g.do("POST", "/v1/lifecycle/"+c.path, c.body)
		require.Equal(t, http.StatusBadRequest, status, name)
		require.Equal(t, c.param, decode(t, body)["error"].(map[string]any)["param"], name)
	}
	require.Empty(t, g.machine.asked)
}

func TestTheTableIsServedInEveryForm(t *testing.T) {
	g := newGateway(t)
	for query, format := range map[string]string{"": "json", "?format=mermaid": "mermaid", "?format=dot": "dot", "?format=markdown": "markdown"} {
		want, err := fsm.Lifecycle().Render(format)
		require.NoError(t, err)
		status, header, body := g.do("GET", "/v1/states"+query, "")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, stateFormats[format], header.Get("Content-Type"))
		require.Equal(t, want, body)
	}
	status, _, _ := g.do("GET", "/v1/states?format=png", "")
	require.Equal(t, http.StatusBadRequest, status)
}

func TestASuccessorIsAskedAndTheAnswerTold(t *testing.T) {
	g := newGateway(t)
	status, _, body := g.do("POST", "/v1/lifecycle/check", "")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"ready":true,"respawn_mode":"exec","version":"next","warnings":[]}`, body)

	g.backend.Check = func(context.Context) (api.Successor, error) {
		return api.Successor{Mode: "spawn", Reason: "the file is no program\nTry: another", Warnings: []string{"one"}}, nil
	}
	_, _, body = g.do("POST", "/v1/lifecycle/check", "")
	require.JSONEq(t, `{"ready":false,"respawn_mode":"spawn","reason":"the file is no program\nTry: another","warnings":["one"]}`, body)

	g.backend.Check = func(ctx context.Context) (api.Successor, error) {
		return api.Successor{}, errors.New("no more processes")
	}
	status, _, body = g.do("POST", "/v1/lifecycle/check", "")
	require.Equal(t, http.StatusInternalServerError, status)
	require.NotContains(t, body, "no more processes", "that is for the log")
}
