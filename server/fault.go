package server

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"gateway/server/api"
)

// writeError answers with err's document. It is the end of the error's way, so what is our fault is logged
// here.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := api.Explain(err)
	if e.Status == api.StatusClientGone { // net/http would say 200 to one that has closed only its own side
		panic(http.ErrAbortHandler)
	}
	e.LogFault(&s.opts.Log, r, err)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	if e.Settled {
		w.Header().Set("X-Should-Retry", "false")
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if e.Needs != 0 {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer error=%q, scope=%q", e.Code, e.Needs))
	}
	if err := api.Reply(w, e.Status, e.Document()); err != nil {
		s.opts.Log.Debug().Err(err).Str("path", r.URL.Path).Msg("the client did not read its answer")
	}
}

// misrouted answers for a path or method that no route has, in the shape of every other error. h is what
// the mux would have answered with.
func misrouted(h http.Handler, w http.ResponseWriter, r *http.Request) *api.Error {
	probe := &headersOnly{header: make(http.Header)}
	h.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		return &api.Error{
			Status: http.StatusMethodNotAllowed, Type: api.TypeInvalid, Code: "method_not_allowed",
			Message: fmt.Sprintf("%s is not possible on %s. Try: %s", r.Method, api.Clip(r.URL.Path), allow),
		}
	}
	return api.NotFound("unknown_path", "", "there is nothing at %s. Try: POST /v1/responses, POST /v1/chat/completions, GET /v1/models, GET /v1/turns, GET /v1/lanes, GET /v1/sessions, GET /v1/lifecycle", api.Clip(r.URL.Path))
}

// headersOnly keeps an answer's headers and drops its body.
type headersOnly struct{ header http.Header }

func (w *headersOnly) Header() http.Header { return w.header }

func (w *headersOnly) WriteHeader(int) {}

func (w *headersOnly) Write(p []byte) (int, error) { return len(p), nil }
