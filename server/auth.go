package server

import (
	"context"
	"net"
	"net/http"
	"strings"

	"gateway/server/api"
)

type trustedKey struct{}

// withTrusted marks a connection that came by the control socket, whose file mode is its authentication.
func withTrusted(ctx context.Context) context.Context {
	return context.WithValue(ctx, trustedKey{}, true)
}

// relayedRequest takes the trust from a request that a predecessor hands on over the control socket, and gives it
// the address it came from. From anywhere else the header means nothing.
func relayedRequest(r *http.Request) *http.Request {
	from := r.Header.Get(relayedFor)
	r.Header.Del(relayedFor)
	if from == "" || !trusted(r.Context()) {
		return r
	}
	r = r.WithContext(context.WithValue(r.Context(), trustedKey{}, false))
	r.RemoteAddr = from
	return r
}

// trusted reports whether the request came by the control socket.
func trusted(ctx context.Context) bool {
	ok, _ := ctx.Value(trustedKey{}).(bool)
	return ok
}

// overControlSocket also reports so of requests that a predecessor hands on: those were counted when they came.
func overControlSocket(ctx context.Context) bool {
	_, ok := ctx.Value(trustedKey{}).(bool)
	return ok
}

// guarded lets through what may come in, and answers for paths and methods that no route has.
func (s *Server) guarded(mux *http.ServeMux, needs map[string]api.Scope) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = relayedRequest(r)
		h, pattern := mux.Handler(r)
		scope := needs[pattern]
		if pattern == "" {
			scope = api.Anyone
		}
		b, _, _, _ := s.gate.look()
		j, known, err := s.judge(r, b, scope)
		if !exempt(r) && !overControlSocket(r.Context()) {
			if limit := s.metered(r, j.who, known); limit != nil {
				err = limit
			}
		}
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		if pattern == "" {
			s.writeError(w, r, misrouted(h, w, r))
			return
		}
		if !exempt(r) {
			r = judged(r, j)
		}
		mux.ServeHTTP(w, r)
	})
}

// authorize decides who asks. The control socket may, probes may, everyone else needs a token; where
// there is none the gateway listens on loopback only, and the Host header must say so too: a page in a
// browser whose name was rebound to 127.0.0.1 still sends its own name.
func authorize(r *http.Request, b *api.Backend, crossOrigin *http.CrossOriginProtection) (*api.Caller, error) {
	if exempt(r) {
		return api.Master, nil
	}
	if b == nil { // no generation has said yet which tokens it wants
		return nil, api.Unavailable("gateway_starting", "the gateway is starting. Try: again in a moment", nil)
	}
	who := api.Master
	if len(b.Callers) > 0 {
		if isUpgrade(r) || isPage(r) {
			return api.Stranger, nil // the first frame has the token, and the page asks for it
		}
		if who = b.Bearer(r); who == nil {
			return nil, &api.Error{
				Status: http.StatusUnauthorized, Type: api.TypeAuthentication, Code: "invalid_api_key",
				Message: "the token is missing or wrong. Try: the header \"Authorization: Bearer TOKEN\" with auth.token or the token of one of auth.clients; a command on the machine of the gateway needs no token",
			}
		}
	} else if !loopbackHost(r.Host) {
		return nil, &api.Error{
			Status: http.StatusForbidden, Type: api.TypePermission, Code: "host_not_allowed",
			Message: "without a token only requests to this machine's own name are answered. Try: http://127.0.0.1 or http://localhost, or set auth.token",
		}
	}
	if err := crossOrigin.Check(r); err != nil {
		return nil, &api.Error{
			Status: http.StatusForbidden, Type: api.TypePermission, Code: "cross_origin", Cause: err,
			Message: "a page of another origin may not change anything here. Try: a client outside the browser, or a page served from this address",
		}
	}
	return who, nil
}

// exempt reports whether whoever asks may: the owner of the control socket, and probes.
func exempt(r *http.Request) bool {
	return trusted(r.Context()) || r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
}

// isUpgrade reports whether the request wants to speak the WebSocket protocol.
func isUpgrade(r *http.Request) bool {
	return r.URL.Path == "/" && r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// loopbackHost reports whether a Host header names this machine to itself.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

type judgementKey struct{}

// judgement is what became of a request at the door.
type judgement struct {
	by    *api.Backend // the generation whose tokens were asked for
	needs api.Scope
	who   *api.Caller
}

// judge decides who asks and whether that is enough, by the tokens of one generation. Known says that it was not a
// stranger who was refused.
func (s *Server) judge(r *http.Request, b *api.Backend, needs api.Scope) (j judgement, known bool, err error) {
	j = judgement{by: b, needs: needs}
	if j.who, err = authorize(r, b, s.crossOrigin); err != nil {
		return j, false, err
	}
	return j, true, j.who.May(needs)
}

// judged notes it in the request.
func judged(r *http.Request, j judgement) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), judgementKey{}, &j))
}

func judgementOf(ctx context.Context) *judgement {
	j, _ := ctx.Value(judgementKey{}).(*judgement)
	return j
}

// judgeAgain judges a request that waited for another generation than the one at whose door it knocked.
func (s *Server) judgeAgain(r *http.Request, b *api.Backend) (*http.Request, error) {
	j := judgementOf(r.Context())
	if j == nil || j.by == b { // none for the control socket
		return r, nil
	}
	again, _, err := s.judge(r, b, j.needs)
	return judged(r, again), err
}
