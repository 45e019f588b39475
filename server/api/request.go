package api

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// The headers of requests and answers that are ours.
const (
	// IdempotencyHeader names the key by which a repeated request finds the turn of the first.
	IdempotencyHeader = "Idempotency-Key"
	// TurnHeader names the turn in an answer.
	TurnHeader = "X-Turn-Id"
)

// The sizes of pages, in turns or sessions.
const (
	DefaultPage = 100
	MaxPage     = 1000
	// MaxPageBytes ends a page of turns early: in memory it takes several times as much.
	MaxPageBytes = 8 << 20
	// MaxSmallBody is the size of the largest body of a request that makes no turn, in bytes.
	MaxSmallBody = 64 << 10
	// bodyPerInput is how much larger than the input a body may be: JSON escapes, and the earlier messages
	// that clients send along.
	bodyPerInput     = 8
	defaultBodyLimit = bodyPerInput << 20
)

// ReadObject reads a body that must be one JSON object of at most limit bytes.
func ReadObject(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if given := r.Header.Get("Content-Type"); given != "" {
		if kind, _, err := mime.ParseMediaType(given); err != nil || kind != "application/json" {
			return nil, &Error{
				Status: http.StatusUnsupportedMediaType, Type: TypeInvalid, Code: "unsupported_media_type",
				Message: fmt.Sprintf("a body of type %q is not read. Try: Content-Type: application/json", Clip(given)),
			}
		}
	}
	return ReadBody(w, r, limit)
}

// ReadSmall reads the members of a small object; without a body there are none.
func ReadSmall(w http.ResponseWriter, r *http.Request, members ...Member) error {
	body, err := ReadObject(w, r, MaxSmallBody)
	if err != nil || len(body) == 0 {
		return err
	}
	f, err := ParseFields(body)
	if err != nil {
		return err
	}
	return cmp.Or(f.TakeMembers(members...), f.RefuseRest(""))
}

// ReadBody reads a body of at most limit bytes, which must be UTF-8.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, IncompleteBody(err)
	}
	if at := NotText(body); at >= 0 {
		return nil, Invalid("", "invalid_encoding", "the body is not UTF-8 at byte %d, and would reach the agent changed. Try: encode it as UTF-8", at)
	}
	return body, nil
}

// IncompleteBody says why a body could not be read whole: who reads it may have said so already.
func IncompleteBody(err error) error {
	_, large := errors.AsType[*http.MaxBytesError](err)
	if _, known := errors.AsType[*Error](err); known || large {
		return err
	}
	return &Error{Status: http.StatusBadRequest, Type: TypeInvalid, Code: "incomplete_body", Message: "the body could not be read whole. Try: the same request again", Cause: err}
}

// QueryInt takes a whole number from the query; without one it is missing.
func QueryInt(query url.Values, name string, low, high, missing int64) (int64, error) {
	given := query.Get(name)
	if given == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(given, 10, 64)
	if err != nil || n < low || n > high {
		if high == math.MaxInt64 {
			return 0, Invalid(name, "invalid_value", "%s must be a whole number from %d. Try: %[2]d, or without it", name, low)
		}
		return 0, Invalid(name, "invalid_value", "%s must be a whole number from %d to %d. Try: one in between, or without it", name, low, high)
	}
	return n, nil
}

// AcceptsEvents reports whether the client asks for server-sent events.
func AcceptsEvents(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// ResumeAfter is the number of the last event that the client has seen: the header that browsers send by
// themselves when they reconnect, else the query; 0 for none.
func ResumeAfter(r *http.Request) (int64, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return QueryInt(url.Values{"Last-Event-ID": {last}}, "Last-Event-ID", 0, math.MaxInt64, 0)
	}
	return QueryInt(r.URL.Query(), "after", 0, math.MaxInt64, 0)
}
