package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"gateway/queue"

	"github.com/rs/zerolog"
)

// The types of error documents, as OpenAI's clients know them.
const (
	typeInvalid        = "invalid_request_error"
	typeAuthentication = "authentication_error"
	typePermission     = "permission_error"
	typeRateLimit      = "rate_limit_error"
	typeServer         = "server_error"
)

// statusClientGone is what the log says of a request whose client left; nobody reads the answer.
const statusClientGone = 499

// apiError is an answer that says no. Its document has OpenAI's shape, whichever endpoint it comes from.
type apiError struct {
	status  int
	kind    string
	code    string
	message string
	// param is the dotted path of what in the request is at fault; empty for none.
	param string
	// retryAfter is sent as Retry-After; 0 for none.
	retryAfter time.Duration
	// settled says that the same request gets the same answer again. It is sent as X-Should-Retry: false,
	// which keeps OpenAI's clients from repeating what they otherwise would (409, 429, 5xx).
	settled bool
	// needs is the scope that is missing, sent as RFC 6750 has it; 0 for none.
	needs Scope
	cause error
}

func (e *apiError) Error() string { return "server: " + e.message }

func (e *apiError) Unwrap() error { return e.cause }

// errorDocument is the body of an error, and the data of one inside a stream.
type errorDocument struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Code    string  `json:"code"`
	Param   *string `json:"param"`
}

func (e *apiError) document() errorDocument {
	body := errorBody{Message: e.message, Type: e.kind, Code: e.code}
	if e.param != "" {
		body.Param = &e.param
	}
	return errorDocument{body}
}

// invalid is a 400 about one parameter.
func invalid(param, code, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: typeInvalid, code: code, param: param, message: fmt.Sprintf(format, args...)}
}

// unsupported refuses a parameter by its name.
func unsupported(param, why string) *apiError {
	return invalid(param, "unsupported_parameter", "%s is not supported: %s", param, why)
}

func notFound(code, param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusNotFound, kind: typeInvalid, code: code, param: param, message: fmt.Sprintf(format, args...)}
}

func noSuchTurn(id string) *apiError {
	return notFound("not_found", "id", "there is no turn %q; finished turns are kept for the retention time only. Try: gateway turns, or GET /v1/turns", clip(id))
}

func tooLarge(what string, limit int64, key string) *apiError {
	return &apiError{
		status: http.StatusRequestEntityTooLarge, kind: typeInvalid, code: "request_too_large",
		message: fmt.Sprintf("%s is larger than %d bytes. Try: send less, or raise %s", what, limit, key),
	}
}

// explain finds the answer for any error that a handler or the gate ended with.
func explain(err error) *apiError {
	var known *apiError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &large):
		return tooLarge("the request's body", large.Limit, "turns.max_input")
	case errors.Is(err, queue.ErrKeyReused):
		return &apiError{
			status: http.StatusConflict, kind: typeInvalid, code: "idempotency_key_reused", settled: true, cause: err,
			message: "this idempotency key was used in this session for another input or agent. Try: a fresh Idempotency-Key for each new message",
		}
	case errors.Is(err, queue.ErrNoRoom):
		return &apiError{
			status: http.StatusInsufficientStorage, kind: typeServer, code: "disk_full", retryAfter: 5 * time.Second, cause: err,
			message: "the disk of the state folder has no room, nothing was accepted. Try: make room; it goes on by itself",
		}
	case errors.Is(err, queue.ErrUnusable):
		return &apiError{
			status: http.StatusServiceUnavailable, kind: typeServer, code: "store_unusable", retryAfter: 5 * time.Second, cause: err,
			message: "the store in the state folder cannot be read or written, nothing was changed. Try: the log says why; it goes on by itself once the disk works again",
		}
	case errors.Is(err, queue.ErrDamaged):
		return &apiError{
			status: http.StatusInternalServerError, kind: typeServer, code: "store_damaged", settled: true, cause: err,
			message: "the store is damaged where this is kept; what does not need it goes on. Try: gateway stop, then restore a backup in the place of gateway.db",
		}
	case errors.Is(err, queue.ErrFull):
		return &apiError{
			status: http.StatusTooManyRequests, kind: typeRateLimit, code: "queue_full", retryAfter: time.Second, cause: err,
			message: "too many turns wait already, nothing was accepted. Try: again later, or raise turns.max_queued or turns.max_queued_per_session",
		}
	case errors.Is(err, queue.ErrNotFound):
		return notFound("not_found", "", "there is no such turn; finished turns are kept for the retention time only. Try: gateway turns, or GET /v1/turns")
	case errors.Is(err, queue.ErrConflict):
		return &apiError{
			status: http.StatusConflict, kind: typeInvalid, code: "conflict", settled: true, cause: err,
			message: "the turn's status does not allow this. Try: GET /v1/turns/{id} to see where it is",
		}
	case errors.Is(err, queue.ErrClosed):
		return stopping(err)
	case errors.Is(err, context.Canceled):
		return &apiError{status: statusClientGone, kind: typeInvalid, code: "client_gone", message: "the client left", cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &apiError{
			status: http.StatusGatewayTimeout, kind: typeServer, code: "timeout", cause: err,
			message: "this took too long; a turn that was accepted goes on. Try: the same request with the same Idempotency-Key",
		}
	default:
		return &apiError{
			status: http.StatusInternalServerError, kind: typeServer, code: "internal_error", cause: err,
			message: "the gateway could not do this. Try: its log, which says why",
		}
	}
}

func unavailable(code, message string, cause error) *apiError {
	return &apiError{status: http.StatusServiceUnavailable, kind: typeServer, code: code, message: message, retryAfter: time.Second, cause: cause}
}

// stopping refuses what comes while the gateway stops.
func stopping(cause error) *apiError {
	return unavailable("gateway_stopping", "the gateway is stopping; what it accepted is safe on disk. Try: again once it is back, with the same Idempotency-Key", cause)
}

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

// logFault logs the error of a request when the gateway is at fault for it.
func (e *apiError) logFault(log *zerolog.Logger, r *http.Request, err error) {
	if e.status == http.StatusInternalServerError || errors.Is(err, queue.ErrUnusable) {
		log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("a request failed")
	}
}

// reply writes a JSON document. The client has writeTimeout to take it.
func reply(w http.ResponseWriter, status int, document any) error {
	body, err := encode(document)
	if err != nil {
		return fmt.Errorf("server: encoding an answer: %w", err)
	}
	return replyText(w, status, "application/json", body)
}

// encode is json.Marshal with a newline at the end, which leaves <, > and & as they are: people read addresses
// in the answers, and none of these is a page.
func encode(document any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(document)
	return b.Bytes(), err
}

func replyText(w http.ResponseWriter, status int, contentType string, body []byte) error {
	rc := http.NewResponseController(w)
	if err := setWriteDeadline(rc, time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("server: answering: %w", err)
	}
	return setWriteDeadline(rc, time.Time{}) // the connection's next answer has its own
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

func (w *headersOnly) Header() http.Header         { return w.header }
func (w *headersOnly) WriteHeader(int)             {}
func (w *headersOnly) Write(p []byte) (int, error) { return len(p), nil }

// clip shortens what a client sent before it is quoted back.
func clip(s string) string {
	const most = 80
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}
