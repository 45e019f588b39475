package described

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/tmaxmax/go-sse"
)

// ours are the headers of answers that mean something of their own here.
var ours = []string{"X-Turn-Id", "X-Should-Retry", "Retry-After", "Www-Authenticate"}

// Transport passes requests on to inner and holds them and their answers against the description, once the
// answer was read or closed. Operations in except are described but not checked.
type Transport struct {
	API    *API
	Inner  http.RoundTripper
	Report func(error)
	Except []string
}

// CloseIdleConnections does what [http.Client] expects.
func (t *Transport) CloseIdleConnections() {
	if inner, ok := t.Inner.(interface{ CloseIdleConnections() }); ok {
		inner.CloseIdleConnections()
	}
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.Inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_, operation := t.API.mux.Handler(r)
	if res.StatusCode == http.StatusSwitchingProtocols || r.Method == http.MethodHead || slices.Contains(t.Except, operation) {
		return res, nil
	}
	report := func(err error) {
		if err != nil {
			t.Report(fmt.Errorf("%s %s, answered with %d, is not as described: %w", r.Method, r.URL.Path, res.StatusCode, err))
		}
	}
	report(t.API.checkRequest(operation, r, res.StatusCode))
	report(t.API.checkHead(operation, res))
	res.Body = &recorder{ReadCloser: res.Body, done: func(body []byte, whole bool) {
		report(t.API.checkBody(operation, res, body, whole))
	}}
	return res, nil
}

// recorder keeps what is read of a body.
type recorder struct {
	io.ReadCloser
	mu   sync.Mutex
	kept bytes.Buffer
	done func(body []byte, whole bool)
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.mu.Lock()
	r.kept.Write(p[:n])
	r.mu.Unlock()
	if errors.Is(err, io.EOF) {
		r.end(true)
	}
	return n, err
}

func (r *recorder) Close() error {
	err := r.ReadCloser.Close()
	r.end(false)
	return err
}

func (r *recorder) end(whole bool) {
	r.mu.Lock()
	done := r.done
	r.done = nil
	r.mu.Unlock()
	if done != nil {
		done(r.kept.Bytes(), whole)
	}
}

// checkRequest holds a request that was carried out against the description, which must not be narrower
// than the gateway.
func (a *API) checkRequest(operation string, r *http.Request, status int) error {
	if operation == "" || status >= 300 {
		return nil
	}
	known := make(map[string]bool)
	for _, path := range [][]string{append(place(operation), "parameters"), append(place(operation)[:2], "parameters")} {
		list, _ := a.at(path...).([]any)
		for i := range list {
			parameter, _ := a.at(a.resolve(append(path, strconv.Itoa(i))...)...).(map[string]any)
			if parameter["in"] == "query" {
				known[parameter["name"].(string)] = true
			}
		}
	}
	for name := range r.URL.Query() {
		if !known[name] {
			return fmt.Errorf("the parameter %q is not described", name)
		}
	}
	path := append(place(operation), "requestBody", "content", "application/json", "schema")
	if r.GetBody == nil || a.at(path...) == nil {
		return nil
	}
	body, err := r.GetBody()
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(body)
	if err != nil || len(raw) == 0 {
		return err
	}
	return a.validate(false, raw, path...)
}

func (a *API) checkHead(operation string, res *http.Response) error {
	if operation == "" {
		return nil
	}
	path := a.resolve(append(place(operation), "responses", strconv.Itoa(res.StatusCode))...)
	if a.at(path...) == nil {
		return errors.New("the status is not described")
	}
	for _, name := range ours {
		at := append(slices.Clone(path), "headers", name)
		if name == "Www-Authenticate" {
			at[len(at)-1] = "WWW-Authenticate"
		}
		header, described := a.at(a.resolve(at...)...).(map[string]any)
		switch given := res.Header.Get(name) != ""; {
		case given && !described:
			return fmt.Errorf("the header %s is not described", name)
		case !given && described && header["required"] == true:
			return fmt.Errorf("the header %s is missing", name)
		}
	}
	return nil
}

// checkBody holds the body of an answer against the description. One that was not read whole is held as far
// as that is possible: the whole events of a stream.
func (a *API) checkBody(operation string, res *http.Response, body []byte, whole bool) error {
	if operation == "" { // nothing is at this path, or not for this method
		return a.validate(true, body, "components", "schemas", "Error")
	}
	status := strconv.Itoa(res.StatusCode)
	path := a.resolve(append(place(operation), "responses", status)...)
	if a.at(path...) == nil {
		return nil // said before
	}
	content, _ := a.at(append(path, "content")...).(map[string]any)
	if len(content) == 0 {
		a.saw(operation, status)
		if len(body) > 0 {
			return fmt.Errorf("a body is not described: %s", body)
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	if _, ok := content[media]; !ok {
		return fmt.Errorf("the media type %q is not described", media)
	}
	path = append(slices.Clone(path), "content", media)
	switch {
	case media == "text/event-stream":
		err = a.checkEvents(path, body, operation, status, media)
	case media == "application/json" && whole:
		err = a.validate(true, body, append(path, "schema")...)
	}
	a.saw(operation, status, media)
	return err
}

func (a *API) checkEvents(path []string, body []byte, seen ...string) error {
	end := []byte("\n\n")
	whole := bytes.LastIndex(body, end)
	if whole < 0 {
		return nil
	}
	body = body[:whole+len(end)]
	named, _ := a.at(append(path, "x-events")...).(map[string]any)
	for event, err := range sse.Read(bytes.NewReader(body), &sse.ReadConfig{MaxEventSize: len(body) + 1}) {
		if err != nil {
			return fmt.Errorf("described: %w", err)
		}
		if event.Data == "" {
			continue
		}
		raw := []byte(event.Data)
		if event.Data == "[DONE]" {
			raw = []byte(`"[DONE]"`)
		}
		at := append(slices.Clone(path), "schema")
		if named != nil {
			ref, ok := named[event.Type].(string)
			if !ok {
				return fmt.Errorf("the event %q is not described", event.Type)
			}
			at = pointer(ref)
			a.saw(append(slices.Clone(seen), event.Type)...)
		}
		if err := a.validate(true, raw, at...); err != nil {
			return err
		}
	}
	return nil
}
