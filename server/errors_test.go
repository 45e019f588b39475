package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(raw)
}

// Every refusal has the one shape that OpenAI's clients read, and is written down here word by word.
func TestEveryRefusalHasTheShapeOfOpenAI(t *testing.T) {
	g := newGateway(t)
	const chat, turn = "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}]}`
	long := strings.Repeat("a", api.MaxKey+2)
	_, _, _ = g.do("POST", chat, turn, "X-Session-Id", "s", "Idempotency-Key", "used")
	cases := map[string][]string{ // method, path, body, headers
		"unknown path":           {"GET", "/v2/models", ""},
		"wrong method":           {"PUT", "/v1/responses/x", ""},
		"unknown model":          {"POST", chat, `{"model":"gpt","messages":[{"role":"user","content":"hi"}]}`},
		"unknown model, shown":   {"GET", "/v1/models/gpt", ""},
		"unknown lane":           {"POST", chat, turn, "X-Lane", "fast"},
		"long key":               {"POST", chat, turn, "Idempotency-Key", long},
		"long session":           {"POST", chat, turn, "X-Session-Id", long},
		"key reused":             {"POST", chat, `{"messages":[{"role":"user","content":"else"}]}`, "X-Session-Id", "s", "Idempotency-Key", "used"},
		"input too large":        {"POST", chat, fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, strings.Repeat("a", 1001))},
		"body too large":         {"POST", chat, fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, strings.Repeat("a", 80_000))},
		"broken JSON":            {"POST", chat, `{"messages":[}`},
		"trailing":               {"POST", chat, turn + turn},
		"not UTF-8":              {"POST", chat, strings.Replace(turn, "hi", "h\xff", 1)},
		"limit":                  {"GET", "/v1/turns?limit=0", ""},
		"narrowed":               {"GET", "/v1/turns?colour=red", ""},
		"path with an ampersand": {"GET", "/v1/a&b", ""},
		"form":                   {"POST", chat, turn, "Content-Type", "application/x-www-form-urlencoded"},
		"tools":                  {"POST", chat, `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function"}]}`},
		"starting_after, plain":  {"GET", "/v1/responses/ID?starting_after=1", ""},
		"starting_after, a word": {"GET", "/v1/responses/ID?stream=true&starting_after=x", ""},
		"stream, a word":         {"GET", "/v1/responses/ID?stream=maybe", ""},
	}
	_, header, _ := g.do("POST", chat, turn)
	id := header.Get("X-Turn-Id")
	names := make([]string, 0, len(cases))
	for name := range cases {
		names = append(names, name)
	}
	sort.Strings(names)
	var page strings.Builder
	for _, name := range names {
		c := cases[name]
		status, header, body := g.do(c[0], strings.ReplaceAll(c[1], "ID", id), c[2], c[3:]...)
		require.Equal(t, "application/json", header.Get("Content-Type"), name)
		require.Equal(t, 1, strings.Count(body, ". Try: "), body)
		require.NotContains(t, body, `\u0026`)
		fmt.Fprintf(&page, "# %s\n%d", name, status)
		for _, h := range []string{"Allow", "Retry-After", "X-Should-Retry"} {
			if v := header.Get(h); v != "" {
				fmt.Fprintf(&page, " %s: %s", h, v)
			}
		}
		fmt.Fprintf(&page, "\n%s\n", body)
	}
	golden(t, "refusals.txt", page.String())
}

func TestAFullQueueRefusesBeforeAnythingIsWritten(t *testing.T) {
	g := newGateway(t)
	require.NoError(t, g.backend.Queue.Drain(t.Context(), ""))
	for i := range 3 {
		status, _, body := g.do("POST", "/v1/responses", `{"input":"x","background":true,"conversation":"c"}`, "Idempotency-Key", fmt.Sprint(i))
		require.Equal(t, http.StatusOK, status, body)
	}
	status, header, body := g.do("POST", "/v1/responses", `{"input":"x","background":true,"conversation":"c"}`, "Idempotency-Key", "more")
	require.Equal(t, http.StatusTooManyRequests, status)
	require.Equal(t, "1", header.Get("Retry-After"))
	require.Contains(t, body, `"code":"queue_full"`)
	require.Equal(t, 3, g.backend.Queue.Stats().Queued)
}

func TestTheSameKeyGetsTheSameTurn(t *testing.T) {
	g := newGateway(t)
	var ids []string
	for range 2 {
		_, header, _ := g.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}]}`, "Idempotency-Key", "k")
		ids = append(ids, header.Get("X-Turn-Id"))
	}
	require.Equal(t, ids[0], ids[1])
}

// A client may close its own side and still read: net/http takes it for gone.
func TestAClientThatClosesItsSideIsNotToldThatAllIsWell(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "one", ln, func(_ http.ResponseWriter, r *http.Request, _ *api.Backend) error {
		<-r.Context().Done()
		return r.Context().Err()
	})
	s.Resume(nil)
	c := dial(t, ln)
	c.send(post("/turn", "hello"))
	require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
	_, err := http.ReadResponse(c.r, nil) //nolint:bodyclose // there is none
	require.Error(t, err)
}

func TestABodyThatCannotBeReadIsTheClientsFault(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "one", ln, nil)
	s.Resume(nil)
	for _, sent := range []string{
		"POST /turn HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nshort",
		"POST /turn HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n",
	} {
		c := dial(t, ln)
		c.send(sent)
		require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
		resp, err := http.ReadResponse(c.r, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		require.Contains(t, string(body), "incomplete_body")
	}
}

func TestModelsAreTheAgents(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	page, err := client.Models.List(t.Context())
	require.NoError(t, err)
	require.Len(t, page.Data, 2)
	require.Equal(t, "echo", page.Data[0].ID)
	require.Equal(t, "gateway", page.Data[0].OwnedBy)
	one, err := client.Models.Get(t.Context(), "other")
	require.NoError(t, err)
	require.Equal(t, "other", one.ID)
}

func TestATokenIsAskedFor(t *testing.T) {
	g := newGateway(t)
	guarded := *g.backend
	guarded.Callers = tokenOf("secret")
	g.Publish(&guarded)
	status, header, body := g.do("GET", "/v1/models", "")
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, "Bearer", header.Get("WWW-Authenticate"))
	require.Contains(t, body, `"code":"invalid_api_key"`)
	status, _, _ = g.do("GET", "/v1/models", "", "Authorization", "Bearer secret")
	require.Equal(t, http.StatusOK, status)
	status, _, _ = g.do("GET", "/healthz", "")
	require.Equal(t, http.StatusOK, status)
}
