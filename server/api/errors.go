package api

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
	TypeInvalid        = "invalid_request_error"
	TypeAuthentication = "authentication_error"
	TypePermission     = "permission_error"
	TypeRateLimit      = "rate_limit_error"
	TypeServer         = "server_error"
)

// StatusClientGone is what the log says of a request whose client left; nobody reads the answer.
const StatusClientGone = 499

// Error is a refusal. Its document has OpenAI's shape, whichever endpoint it comes from.
type Error struct {
	Status  int
	Type    string
	Code    string
	Message string
	// Param is the dotted path of what in the request is at fault; empty for none.
	Param string
	// RetryAfter is sent as Retry-After; 0 for none.
	RetryAfter time.Duration
	// Settled says that the same request gets the same answer again. It is sent as X-Should-Retry: false,
	// which keeps OpenAI's clients from repeating what they otherwise would (409, 429, 5xx).
	Settled bool
	// Needs is the scope that is missing, sent as RFC 6750 has it; 0 for none.
	Needs Scope
	Cause error
}

// Error implements error.
func (e *Error) Error() string { return "server: " + e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ErrorDocument is the body of an error, and the data of one inside a stream.
type ErrorDocument struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody is the one member of an ErrorDocument. Param is null when the request as a whole is at fault.
type ErrorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Code    string  `json:"code"`
	Param   *string `json:"param"`
}

// Document is what the client is sent.
func (e *Error) Document() ErrorDocument {
	body := ErrorBody{Message: e.Message, Type: e.Type, Code: e.Code}
	if e.Param != "" {
		body.Param = &e.Param
	}
	return ErrorDocument{body}
}

// Invalid is a 400 about one parameter.
func Invalid(param, code, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: TypeInvalid, Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

// Unsupported refuses a parameter by its name.
func Unsupported(param, why string) *Error {
	return Invalid(param, "unsupported_parameter", "%s is not supported: %s", param, why)
}

// NotFound is a 404. Param is empty for the path itself.
func NotFound(code, param, format string, args ...any) *Error {
	return &Error{Status: http.StatusNotFound, Type: TypeInvalid, Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

// NoSuchTurn is the 404 for a turn.
func NoSuchTurn(id string) *Error {
	return NotFound("not_found", "id", "there is no turn %q; finished turns are deleted after turns.retention. Try: gateway turns, or GET /v1/turns", Clip(id))
}

// TooLarge is a 413. Limit is in bytes, and key is the setting that raises it.
func TooLarge(what string, limit int64, key string) *Error {
	return &Error{
		Status: http.StatusRequestEntityTooLarge, Type: TypeInvalid, Code: "request_too_large",
		Message: fmt.Sprintf("%s is larger than %d bytes. Try: send less, or raise %s", what, limit, key),
	}
}

// Explain finds the answer for any error that a handler or the gate ended with.
func Explain(err error) *Error {
	var known *Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &large):
		return TooLarge("the request's body", large.Limit, "turns.max_input")
	case errors.Is(err, queue.ErrKeyReused):
		return &Error{
			Status: http.StatusConflict, Type: TypeInvalid, Code: "idempotency_key_reused", Settled: true, Cause: err,
			Message: "this idempotency key was used in this session for another input or agent. Try: a fresh Idempotency-Key for each new message",
		}
	case errors.Is(err, queue.ErrNoRoom):
		return &Error{
			Status: http.StatusInsufficientStorage, Type: TypeServer, Code: "disk_full", RetryAfter: 5 * time.Second, Cause: err,
			Message: "the disk of the state folder has no room, nothing was accepted. Try: make room; it goes on by itself",
		}
	case errors.Is(err, queue.ErrUnusable):
		return &Error{
			Status: http.StatusServiceUnavailable, Type: TypeServer, Code: "store_unusable", RetryAfter: 5 * time.Second, Cause: err,
			Message: "the store in the state folder cannot be read or written, nothing was changed. Try: the log says why; it goes on by itself once the disk works again",
		}
	case errors.Is(err, queue.ErrDamaged):
		return &Error{
			Status: http.StatusInternalServerError, Type: TypeServer, Code: "store_damaged", Settled: true, Cause: err,
			Message: "the store is damaged where this is kept; what does not need it goes on. Try: gateway stop, then restore a backup in the place of gateway.db",
		}
	case errors.Is(err, queue.ErrFull):
		return &Error{
			Status: http.StatusTooManyRequests, Type: TypeRateLimit, Code: "queue_full", RetryAfter: time.Second, Cause: err,
			Message: "too many turns wait already, nothing was accepted. Try: again later, or raise turns.max_queued or turns.max_queued_per_session",
		}
	case errors.Is(err, queue.ErrNotFound):
		return NotFound("not_found", "", "there is no such turn; finished turns are deleted after turns.retention. Try: gateway turns, or GET /v1/turns")
	case errors.Is(err, queue.ErrConflict):
		return &Error{
			Status: http.StatusConflict, Type: TypeInvalid, Code: "conflict", Settled: true, Cause: err,
			Message: "the turn's status does not allow this. Try: GET /v1/turns/{id} to see where it is",
		}
	case errors.Is(err, queue.ErrClosed):
		return Stopping(err)
	case errors.Is(err, context.Canceled):
		return &Error{Status: StatusClientGone, Type: TypeInvalid, Code: "client_gone", Message: "the client left", Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{
			Status: http.StatusGatewayTimeout, Type: TypeServer, Code: "timeout", Cause: err,
			Message: "this took too long; a turn that was accepted goes on. Try: the same request with the same Idempotency-Key",
		}
	default:
		return &Error{
			Status: http.StatusInternalServerError, Type: TypeServer, Code: "internal_error", Cause: err,
			Message: "the gateway could not do this. Try: its log, which says why",
		}
	}
}

// Unavailable is a 503 that asks the client to try again after a second.
func Unavailable(code, message string, cause error) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Type: TypeServer, Code: code, Message: message, RetryAfter: time.Second, Cause: cause}
}

// Stopping refuses what comes while the gateway stops.
func Stopping(cause error) *Error {
	return Unavailable("gateway_stopping", "the gateway is stopping; accepted turns are on disk. Try: again when it is back, with the same Idempotency-Key", cause)
}

// LogFault logs the error of a request when the gateway is at fault for it.
func (e *Error) LogFault(log *zerolog.Logger, r *http.Request, err error) {
	if e.Status == http.StatusInternalServerError || errors.Is(err, queue.ErrUnusable) {
		log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("a request failed")
	}
}

// Clip shortens what a client sent before it is quoted back.
func Clip(s string) string {
	const most = 80
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// Nested puts where before the parameter that err names.
func Nested(err error, where string) error {
	e := Explain(err)
	e.Param = where + "." + e.Param
	e.Message = where + "." + e.Message
	return e
}
