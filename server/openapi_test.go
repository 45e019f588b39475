package server

import (
	"bufio"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/described"
)

// description is what the gateways of all tests are held to.
var description = sync.OnceValue(func() *described.API {
	raw, err := openAPIAsJSON()
	if err != nil {
		panic(err)
	}
	api, err := described.Parse(raw)
	if err != nil {
		panic(err)
	}
	return api
})

func TestTheDescriptionIsOpenAPI(t *testing.T) {
	require.NoError(t, description().Validate(t.Context()))
}

func TestTheDescriptionHasEveryRouteAndNoOther(t *testing.T) {
	routes := bare().routes()
	patterns := slices.Sorted(maps.Keys(routes.gated))
	patterns = slices.Sorted(slices.Values(append(patterns, slices.Sorted(maps.Keys(routes.always))...)))
	require.Equal(t, patterns, description().Operations())
}

func TestTheDescriptionHasEveryErrorAndNoOther(t *testing.T) {
	made := codesOfErrors(t)
	delete(made, "client_gone") // nobody is left to read it
	all, byStatus := description().Codes()
	require.ElementsMatch(t, slices.Sorted(maps.Keys(made)), all)
	for status, codes := range byStatus {
		require.Subset(t, all, codes, status)
	}
}

func TestTheDescriptionIsServed(t *testing.T) {
	g := newGateway(t)
	status, header, body := g.do("GET", "/v1/openapi.json", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "application/json", header.Get("Content-Type"))
	require.Equal(t, "3.1.0", decode(t, body)["openapi"])
}

// What follows has no other test that looks at it over HTTP; that it is as described is checked on the way.

// A turn that failed, was brought back, waits and is cancelled has all these events on every stream.
func TestAStreamOfATurnThatComesBackIsDescribed(t *testing.T) {
	g := newGateway(t)
	const body = `{"input":"fail","stream":true,"conversation":"c"}`
	_, header, _ := g.do("POST", "/v1/responses", body, "Idempotency-Key", "k")
	id := header.Get("X-Turn-Id")
	status, _, answer := g.do("PATCH", "/v1/sessions/c", `{"paused":true}`)
	require.Equal(t, http.StatusOK, status, answer)
	status, _, answer = g.do("POST", "/v1/turns/"+id+"/retry", "")
	require.Equal(t, http.StatusOK, status, answer)

	var streams []*bufio.Reader
	for _, ask := range [][]string{ // method, path, body, headers
		{"POST", "/v1/responses", body, "Idempotency-Key", "k"},
		{"GET", "/v1/responses/" + id + "?stream=true", ""},
		{"GET", "/v1/turns/" + id + "/events", "", "Accept", "text/event-stream"},
	} {
		res := g.begin(ask[0], ask[1], ask[2], ask[3:]...)
		defer func() { require.NoError(t, res.Body.Close()) }()
		stream := bufio.NewReader(res.Body)
		for line := ""; line != "event: waiting\n"; {
			var err error
			line, err = stream.ReadString('\n')
			require.NoError(t, err)
		}
		streams = append(streams, stream)
	}
	status, _, answer = g.do("POST", "/v1/turns/"+id+"/cancel", "")
	require.Equal(t, http.StatusOK, status, answer)
	for i, end := range []string{"response.incomplete", "response.incomplete", "cancelled"} {
		rest, err := io.ReadAll(streams[i])
		require.NoError(t, err)
		require.Contains(t, string(rest), "event: "+end+"\n")
	}
	status, _, answer = g.do("DELETE", "/v1/turns/"+id, "")
	require.Equal(t, http.StatusOK, status, answer)
	status, _, _ = g.do("GET", "/v1/turns/"+id, "")
	require.Equal(t, http.StatusNotFound, status)
}

func TestAStreamThatARestartCutsIsDescribed(t *testing.T) {
	g := newGateway(t)
	_, header, _ := g.do("POST", "/v1/responses", `{"input":"block","background":true}`)
	id := header.Get("X-Turn-Id")
	g.began()
	res := g.begin("GET", "/v1/responses/"+id+"?stream=true", "")
	defer func() { require.NoError(t, res.Body.Close()) }()
	g.restart()
	require.Contains(t, readAll(t, res), "event: shutdown\n")
	close(g.agent.Release)
	g.ended(id)
	_, _, log := g.do("GET", "/v1/turns/"+id+"/events", "", "Accept", "text/event-stream")
	require.Contains(t, log, "event: interrupted\n")
}

func TestAStreamOfCallsAndALogOfJoinedInputsAreDescribed(t *testing.T) {
	g := newGateway(t)
	_, header, _ := g.do("POST", "/v1/responses", `{"input":"call"}`)
	_, _, stream := g.do("GET", "/v1/responses/"+header.Get("X-Turn-Id")+"?stream=true", "")
	require.Contains(t, stream, "event: response.function_call_arguments.done\n")

	require.NoError(t, g.backend.Queue.Drain(t.Context(), ""))
	for _, text := range []string{"one", "two"} {
		_, header, _ = g.do("POST", "/v1/responses", `{"input":"`+text+`","background":true,"conversation":"c"}`, "X-Queue-Mode", "collect")
	}
	g.backend.Queue.Resume()
	id := header.Get("X-Turn-Id")
	g.ended(id)
	_, _, log := g.do("GET", "/v1/turns/"+id+"/events", "", "Accept", "text/event-stream")
	require.Contains(t, log, "event: collected\n")
}
