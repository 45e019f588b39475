package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

// ask has a turn answered and returns its id.
func (g *gateway) ask(text, session string) string {
	g.t.Helper()
	_, header, _ := g.do("POST", "/v1/responses", fmt.Sprintf(`{"input":%q}`, text), "X-Session-Id", session)
	id := header.Get("X-Turn-Id")
	require.NotEmpty(g.t, id)
	return id
}

func TestTurnsAreListedNewestFirstInPages(t *testing.T) {
	g := newGateway(t)
	first, second, third := g.ask("one", "a"), g.ask("two", "a"), g.ask("fail", "b")
	ids := func(query string) (ids []string, more bool) {
		status, _, body := g.do("GET", "/v1/turns"+query, "")
		require.Equal(t, http.StatusOK, status, body)
		page := decode(t, body)
		for _, turn := range page["turns"].([]any) {
			ids = append(ids, turn.(map[string]any)["id"].(string))
		}
		return ids, page["has_more"].(bool)
	}
	for query, want := range map[string][]string{
		"": {third, second, first}, "?session=a": {second, first}, "?status=failed,cancelled": {third},
		"?status=completed&limit=2": {second, first}, "?agent=other": nil, "?lane=main&before=" + second: {first},
	} {
		got, more := ids(query)
		require.Equal(t, want, got, query)
		require.False(t, more, query)
	}
	got, more := ids("?limit=2")
	require.Equal(t, []string{third, second}, got)
	require.True(t, more)
	got, more = ids("?limit=2&before=" + second)
	require.Equal(t, []string{first}, got)
	require.False(t, more)

	for query, param := range map[string]string{
		"?limit=0": "limit", "?limit=1001": "limit", "?limit=x": "limit", "?status=lost": "status", "?state=failed": "state",
		"?session=" + strings.Repeat("a", api.MaxName+1): "session",
	} {
		status, _, body := g.do("GET", "/v1/turns"+query, "")
		require.Equal(t, http.StatusBadRequest, status, query)
		require.Equal(t, param, decode(t, body)["error"].(map[string]any)["param"], query)
	}
}

func TestAPageOfTurnsEndsBeforeItIsTooMuchForTheMemory(t *testing.T) {
	g := newGateway(t)
	large := *g.backend
	large.MaxInput = 1 << 20
	g.backend = &large
	g.Publish(g.backend)
	text := strings.Repeat("x", 1<<20-100)
	var want []string
	for range 6 { // the echo of each is as long
		want = append([]string{g.ask(text, "a")}, want...)
	}
	var got []string
	pages := 0
	for before, more := "", true; more; pages++ {
		status, _, body := g.do("GET", "/v1/turns?limit=1000&before="+before, "")
		require.Equal(t, http.StatusOK, status)
		require.Less(t, len(body), api.MaxPageBytes+3<<20)
		page := decode(t, body)
		for _, turn := range page["turns"].([]any) {
			before = turn.(map[string]any)["id"].(string)
			got = append(got, before)
		}
		more = page["has_more"].(bool)
	}
	require.Equal(t, want, got)
	require.Equal(t, 2, pages)
}

func TestATurnIsShown(t *testing.T) {
	g := newGateway(t)
	id := g.ask("hello", "a")
	status, _, body := g.do("GET", "/v1/turns/"+id, "")
	require.Equal(t, http.StatusOK, status)
	turn := decode(t, body)
	for _, name := range []string{"id", "session", "lane", "agent", "status", "attempt", "input", "output", "error", "created_at", "started_at", "finished_at"} {
		require.Contains(t, turn, name)
	}
	require.Equal(t, "hello", turn["output"])
	for _, path := range []string{"/v1/turns/nope", "/v1/turns/nope/events", "/v1/responses/nope", "/v1/turns/" + strings.Repeat("a", 100), "/v1/turns/a%00b"} {
		status, _, body := g.do("GET", path, "")
		require.Equal(t, http.StatusNotFound, status, path)
		require.Contains(t, body, `"code":"not_found"`)
	}
}

func TestEventsAreReadFromWhereAClientStopped(t *testing.T) {
	g := newGateway(t)
	id := g.ask("hello", "a")
	path := "/v1/turns/" + id + "/events"

	_, _, body := g.do("GET", path, "")
	require.Len(t, decode(t, body)["events"], 3)
	_, _, body = g.do("GET", path+"?after=1", "")
	require.Len(t, decode(t, body)["events"], 2)
	_, _, body = g.do("GET", path+"?after=99", "")
	require.JSONEq(t, `{"events":[]}`, body)

	sse := []string{"Accept", "text/event-stream"}
	_, header, all := g.do("GET", path, "", sse...)
	require.Equal(t, "text/event-stream", header.Get("Content-Type"))
	require.Equal(t, 3, strings.Count(all, "\ndata: "))
	require.True(t, strings.HasPrefix(all, "id: 1\nevent: started\ndata: {\"turn\":"), all)
	_, _, tail := g.do("GET", path+"?after=1", "", sse...)
	require.True(t, strings.HasSuffix(all, tail))
	require.Equal(t, 2, strings.Count(tail, "\ndata: "))
	_, _, same := g.do("GET", path+"?after=2", "", append(sse, "Last-Event-ID", "1")...)
	require.Equal(t, tail, same, "the browser's header outranks the address")
	status, _, _ := g.do("GET", path, "", append(sse, "Last-Event-ID", "3")...)
	require.Equal(t, http.StatusNoContent, status, "an EventSource would come back for ever")
	status, _, _ = g.do("GET", path, "", append(sse, "Last-Event-ID", "x")...)
	require.Equal(t, http.StatusBadRequest, status)
}

func TestALiveReaderIsToldOfARestart(t *testing.T) {
	g := newGateway(t)
	_, header, _ := g.do("POST", "/v1/responses", `{"input":"block","background":true}`)
	id := header.Get("X-Turn-Id")
	res := g.begin("GET", "/v1/turns/"+id+"/events", "", "Accept", "text/event-stream")
	defer func() { require.NoError(t, res.Body.Close()) }()
	first := make([]byte, 16)
	_, err := res.Body.Read(first)
	require.NoError(t, err)
	g.restart()
	rest := readAll(t, res)
	require.Contains(t, rest, "event: shutdown\ndata: {\"reason\":\"gateway restarting\",\"restart_expected_ms\":1500}\n\nevent: error\n")
	require.Contains(t, rest, `"code":"gateway_restarting"`)
	require.Contains(t, rest, "/v1/turns/"+id+"/events?after=")
	close(g.agent.Release)
	require.Equal(t, "begun and done", g.ended(id).Output)
}

func TestATurnIsCancelledAndRetried(t *testing.T) {
	g := newGateway(t)
	_, header, _ := g.do("POST", "/v1/responses", `{"input":"block","background":true}`)
	id := header.Get("X-Turn-Id")
	g.began()
	for range 2 {
		status, _, body := g.do("POST", "/v1/turns/"+id+"/cancel", "")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "cancelled", decode(t, body)["status"])
	}
	close(g.agent.Release)
	status, _, body := g.do("POST", "/v1/turns/"+id+"/retry", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, id, decode(t, body)["id"])
	require.Equal(t, "begun and done", g.ended(id).Output)

	for _, verb := range []string{"cancel", "retry"} {
		status, header, body := g.do("POST", "/v1/turns/"+id+"/"+verb, "")
		require.Equal(t, http.StatusConflict, status)
		require.Equal(t, "false", header.Get("X-Should-Retry"))
		require.Contains(t, body, `"code":"conflict"`)
		status, _, _ = g.do("POST", "/v1/turns/nope/"+verb, "")
		require.Equal(t, http.StatusNotFound, status)
	}
}

func TestLanesAndSessionsAreListed(t *testing.T) {
	g := newGateway(t)
	_, _, body := g.do("GET", "/v1/sessions", "")
	require.JSONEq(t, `{"sessions":[]}`, body)
	g.ask("one", "a")
	g.ask("two", "b")
	_, _, body = g.do("GET", "/v1/sessions?limit=1", "")
	sessions := decode(t, body)["sessions"].([]any)
	require.Len(t, sessions, 1)
	require.Equal(t, "b", sessions[0].(map[string]any)["session"])
	_, _, body = g.do("GET", "/v1/lanes", "")
	lanes := decode(t, body)["lanes"].([]any)
	require.Len(t, lanes, 2)
	require.Equal(t, "cron", lanes[0].(map[string]any)["lane"])
}

// The gate replays a request unless something was written. A stream must not write behind its back.
func TestTheGateSeesThatAStreamHasBegun(t *testing.T) {
	w := &watched{ResponseWriter: httptest.NewRecorder()}
	out := api.NewStream(w)
	require.False(t, w.wrote)
	require.NoError(t, out.Send("a", "", 1))
	require.True(t, w.wrote)
}
