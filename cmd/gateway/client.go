package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"gateway/internal/config"
	"gateway/internal/process"
)

// answerLimit bounds what is read of one answer, in bytes.
const answerLimit = 64 << 20

// client talks to a gateway: over the control socket of its state folder, or over its URL.
type client struct {
	http     *http.Client
	base     string
	token    string
	stateDir string // empty for a gateway elsewhere
}

// connect finds the gateway; it does not contact it yet. There is no time limit but the context's: while
// a gateway restarts, connections wait.
func (o *options) connect() (*client, error) {
	if base := o.url; base != "" || environment("GATEWAY_URL") != "" {
		if base == "" {
			base = environment("GATEWAY_URL")
		}
		u, err := url.Parse(base)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, usageError(fmt.Errorf("%q is not an address\nTry: --url http://127.0.0.1:18789", base))
		}
		token := o.token
		if token == "" {
			token = environment("GATEWAY_TOKEN", "GATEWAY_AUTH_TOKEN")
		}
		return &client{http: &http.Client{}, base: strings.TrimSuffix(base, "/"), token: token}, nil
	}
	dir, err := config.StateDir(o.source())
	if err != nil {
		return nil, err
	}
	return &client{
		base: "http://gateway", stateDir: dir,
		http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return process.DialSocket(ctx, dir)
		}}},
	}, nil
}

// apiError is a refusal by the gateway.
type apiError struct {
	status  int
	Message string `json:"message"`
	Code    string `json:"code"`
}

func (e *apiError) Error() string {
	if strings.Contains(e.Message, "Try:") {
		return strings.Replace(e.Message, ". Try:", "\nTry:", 1)
	}
	return e.Message
}

// notRunning reports whether an error means that nobody listens.
func notRunning(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// explain turns an error of the connection into one for people.
func (c *client) explain(err error) error {
	switch {
	case notRunning(err) && c.stateDir != "":
		return fmt.Errorf("no gateway runs with the state folder %s\nTry: gateway run", c.stateDir)
	case notRunning(err):
		return fmt.Errorf("no gateway answers at %s\nTry: gateway status on its machine", c.base)
	default:
		return err
	}
}

// request makes a request; a status that is no success is an apiError.
func (c *client) request(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	maps.Copy(req.Header, header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var doc struct {
		Error apiError `json:"error"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if json.Unmarshal(text, &doc) != nil || doc.Error.Message == "" {
		doc.Error.Message = fmt.Sprintf("the gateway answered %s\nTry: is %s a gateway?", resp.Status, c.base)
	}
	doc.Error.status = resp.StatusCode
	return nil, &doc.Error
}

// call makes a request and decodes the answer into `into`, unless that is nil.
func (c *client) call(ctx context.Context, method, path string, body, into any, header http.Header) error {
	resp, err := c.request(ctx, method, path, body, header)
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(into); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// snapshot is the answer of GET /v1/lifecycle.
type snapshot struct {
	statusDocument
	History []hopDocument `json:"history"`
}

func (c *client) snapshot(ctx context.Context) (s snapshot, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/lifecycle", nil, &s, nil)
}

// printJSON writes a document for programs.
func printJSON(w io.Writer, doc any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
