package server

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

	"gateway/queue"
)

const (
	maxSmallBody = 64 << 10
	// bodyPerInput is how much larger than the input a body may be: JSON escapes, and the earlier messages
	// that clients send along.
	bodyPerInput     = 8
	defaultBodyLimit = bodyPerInput << 20
)

// turnID takes the turn's id from the path.
func turnID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if id == "" || !printable(id, maxID) {
		return "", noSuchTurn(id)
	}
	return id, nil
}

// readObject reads a body that must be one JSON object of at most limit bytes.
func readObject(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if given := r.Header.Get("Content-Type"); given != "" {
		if kind, _, err := mime.ParseMediaType(given); err != nil || kind != "application/json" {
			return nil, &apiError{
				status: http.StatusUnsupportedMediaType, kind: typeInvalid, code: "unsupported_media_type",
				message: fmt.Sprintf("a body of type %q is not read. Try: Content-Type: application/json", clip(given)),
			}
		}
	}
	return readBody(w, r, limit)
}

// readSmall reads the members of a small object; without a body there are none.
func readSmall(w http.ResponseWriter, r *http.Request, members ...member) error {
	body, err := readObject(w, r, maxSmallBody)
	if err != nil || len(body) == 0 {
		return err
	}
	f, err := parseFields(body)
	if err != nil {
		return err
	}
	return cmp.Or(f.takeEach(members...), f.rest(""))
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, unread(err)
	}
	if at := notText(body); at >= 0 {
		return nil, invalid("", "invalid_encoding", "the body is not UTF-8 at byte %d, and would not reach the agent as it is. Try: encode it as UTF-8", at)
	}
	return body, nil
}

// unread says why a body could not be read whole: who reads it may have said so already.
func unread(err error) error {
	_, large := errors.AsType[*http.MaxBytesError](err)
	if _, known := errors.AsType[*apiError](err); known || large {
		return err
	}
	return &apiError{status: http.StatusBadRequest, kind: typeInvalid, code: "incomplete_body", message: "the body could not be read whole. Try: the same request again", cause: err}
}

// count takes a whole number from the query; without one it is missing.
func count(query url.Values, name string, low, high, missing int64) (int64, error) {
	given := query.Get(name)
	if given == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(given, 10, 64)
	if err != nil || n < low || n > high {
		if high == math.MaxInt64 {
			return 0, invalid(name, "invalid_value", "%s must be a whole number from %d. Try: %[2]d, or without it", name, low)
		}
		return 0, invalid(name, "invalid_value", "%s must be a whole number from %d to %d. Try: one in between, or without it", name, low, high)
	}
	return n, nil
}

// acceptsEvents reports whether the client asks for server-sent events.
func acceptsEvents(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// resumeAfter is the number of the last event that the client has seen: the header that browsers send by
// themselves when they reconnect, else the query; 0 for none.
func resumeAfter(r *http.Request) (int64, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return count(url.Values{"Last-Event-ID": {last}}, "Last-Event-ID", 0, math.MaxInt64, 0)
	}
	return count(r.URL.Query(), "after", 0, math.MaxInt64, 0)
}

const (
	idempotencyHeader = "Idempotency-Key"
	turnHeader        = "X-Turn-Id"
	defaultPage       = 100
	maxPage           = 1000
	// maxPageBytes ends a page of turns early: in memory it takes several times as much.
	maxPageBytes = 8 << 20
)

// turnOf reads the turn that the path names.
func turnOf(r *http.Request, b *Backend) (queue.Turn, error) {
	id, err := turnID(r)
	if err != nil {
		return queue.Turn{}, err
	}
	t, err := b.Queue.Turn(r.Context(), id)
	if errors.Is(err, queue.ErrNotFound) {
		return t, noSuchTurn(id)
	}
	return t, err
}

// cancel ends the turn. One that is cancelled already is as good as cancelled now.
func cancel(r *http.Request, b *Backend) (queue.Turn, error) {
	id, err := turnID(r)
	if err != nil {
		return queue.Turn{}, err
	}
	t, err := b.Queue.Cancel(r.Context(), id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return t, noSuchTurn(id)
	case errors.Is(err, queue.ErrConflict) && t.Status == queue.Cancelled:
		return t, nil
	}
	return t, err
}

func forget(r *http.Request, b *Backend) (queue.Turn, error) {
	id, err := turnID(r)
	if err != nil {
		return queue.Turn{}, err
	}
	t, err := b.Queue.Delete(r.Context(), id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return t, noSuchTurn(id)
	case errors.Is(err, queue.ErrConflict):
		return t, &apiError{
			status: http.StatusConflict, kind: typeInvalid, code: "conflict", settled: true, cause: err,
			message: fmt.Sprintf("turn %s is %s, and only one that has ended can be deleted. Try: POST /v1/turns/%[1]s/cancel first", id, t.Status),
		}
	}
	return t, err
}
