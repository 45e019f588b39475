package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"gateway/queue"
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

// logFault logs the error of a request when the gateway is at fault for it.
func (e *apiError) logFault(log *zerolog.Logger, r *http.Request, err error) {
	if e.status == http.StatusInternalServerError || errors.Is(err, queue.ErrUnusable) {
		log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("a request failed")
	}
}

// clip shortens what a client sent before it is quoted back.
func clip(s string) string {
	const most = 80
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// nested puts where before the parameter that err names.
func nested(err error, where string) error {
	e := explain(err)
	e.param = where + "." + e.param
	e.message = where + "." + e.message
	return e
}
