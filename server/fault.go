package server

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// writeError answers with err's document. It is the end of the error's way, so what is our fault is logged
// here.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := explain(err)
	if e.status == statusClientGone { // net/http would say 200 to one that has closed only its own side
		panic(http.ErrAbortHandler)
	}
	e.logFault(&s.opts.Log, r, err)
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.retryAfter+time.Second-1)/time.Second)))
	}
	if e.settled {
		w.Header().Set("X-Should-Retry", "false")
	}
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if e.needs != 0 {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer error=%q, scope=%q", e.code, e.needs))
	}
	if err := reply(w, e.status, e.document()); err != nil {
		s.opts.Log.Debug().Err(err).Str("path", r.URL.Path).Msg("the client did not take its answer")
	}
}

// misrouted answers for a path or method that no route has, in the shape of every other error. h is what
// the mux would have answered with.
func misrouted(h http.Handler, w http.ResponseWriter, r *http.Request) *apiError {
	probe := &headersOnly{header: make(http.Header)}
	h.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		return &apiError{
			status: http.StatusMethodNotAllowed, kind: typeInvalid, code: "method_not_allowed",
			message: fmt.Sprintf("%s is not possible on %s. Try: %s", r.Method, clip(r.URL.Path), allow),
		}
	}
	return notFound("unknown_path", "", "there is nothing at %s. Try: POST /v1/responses, POST /v1/chat/completions, GET /v1/models, GET /v1/turns, GET /v1/lanes, GET /v1/sessions, GET /v1/lifecycle", clip(r.URL.Path))
}

// headersOnly keeps an answer's headers and drops its body.
type headersOnly struct{ header http.Header }

func (w *headersOnly) Header() http.Header { return w.header }

func (w *headersOnly) WriteHeader(int) {}

func (w *headersOnly) Write(p []byte) (int, error) { return len(p), nil }
