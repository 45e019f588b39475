package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

func TestASessionIsPausedAndGivenAModeByPatch(t *testing.T) {
	g := newGateway(t)
	status, _, body := g.do("PATCH", "/v1/sessions/a%2Fb", `{"paused": true, "mode": "collect"}`)
	require.Equal(t, http.StatusOK, status, body)
	require.Equal(t, map[string]any{
		"session": "a/b", "paused": true, "mode": "collect", "turns": 0.0, "queued": 0.0, "running": 0.0, "updated_at": "0001-01-01T00:00:00Z",
	}, decode(t, body))
	ids := make(map[string]bool)
	for _, text := range []string{"one", "two"} {
		_, header, body := g.do("POST", "/v1/responses", `{"input":"`+text+`","background":true}`, "X-Session-Id", "a/b")
		require.NotEmpty(t, header.Get("X-Turn-Id"), body)
		ids[header.Get("X-Turn-Id")] = true
	}
	require.Len(t, ids, 1, "the second joined the first")
	status, _, body = g.do("PATCH", "/v1/sessions/a%2Fb", `{"paused": false}`)
	require.Equal(t, http.StatusOK, status, body)
	for id := range ids {
		require.Equal(t, "one\n\ntwo", g.ended(id).Input)
	}
	_, _, body = g.do("GET", "/v1/sessions/a%2Fb", "")
	require.Equal(t, "collect", decode(t, body)["mode"], "what was not named stays")
}

func TestALaneIsPausedByPatch(t *testing.T) {
	g := newGateway(t)
	status, _, body := g.do("PATCH", "/v1/lanes/main", `{"paused": true}`)
	require.Equal(t, http.StatusOK, status, body)
	require.Equal(t, true, decode(t, body)["paused"])
	_, header, _ := g.do("POST", "/v1/responses", `{"input":"x","background":true}`)
	_, _, body = g.do("GET", "/v1/lanes", "")
	require.Contains(t, body, `"queued":1`)
	status, _, _ = g.do("PATCH", "/v1/lanes/main", `{"paused": false}`)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "x", g.ended(header.Get("X-Turn-Id")).Output)
}

func TestTheModeOfARequestIsAHeader(t *testing.T) {
	g := newGateway(t)
	_, header, _ := g.do("POST", "/v1/responses", `{"input":"x"}`, "X-Queue-Mode", "interrupt")
	_, _, body := g.do("GET", "/v1/turns/"+header.Get("X-Turn-Id"), "")
	require.Equal(t, "interrupt", decode(t, body)["mode"])
}

func TestWhatCannotBeSetIsRefusedByName(t *testing.T) {
	g := newGateway(t)
	for name, c := range map[string]struct {
		path, body    string
		status        int
		code, message string
	}{
		"nothing":         {"/v1/sessions/a", `{}`, 400, "nothing_to_change", "Try:"},
		"no body":         {"/v1/lanes/main", ``, 400, "nothing_to_change", "Try:"},
		"a mode":          {"/v1/sessions/a", `{"mode":"steer"}`, 400, "invalid_value", "collect"},
		"a type":          {"/v1/sessions/a", `{"paused":"yes"}`, 400, "invalid_type", "paused"},
		"another member":  {"/v1/lanes/main", `{"paused":true,"speed":1}`, 400, "unsupported_parameter", "speed"},
		"no such lane":    {"/v1/lanes/fast", `{"paused":true}`, 404, "lane_not_found", "main"},
		"a name too long": {"/v1/sessions/" + strings.Repeat("a", api.MaxName+1), `{"paused":true}`, 400, "invalid_value", "256"},
	} {
		status, _, body := g.do("PATCH", c.path, c.body)
		require.Equal(t, c.status, status, "%s: %s", name, body)
		e := decode(t, body)["error"].(map[string]any)
		require.Equal(t, c.code, e["code"], name)
		require.Contains(t, e["message"], c.message, name)
	}
	status, _, body := g.do("POST", "/v1/responses", `{"input":"x"}`, "X-Queue-Mode", "now")
	require.Equal(t, http.StatusBadRequest, status, body)
	require.Contains(t, body, "followup")
}
