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

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/statedir"
	"gateway/server"
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
		return nil, &exitError{fsm.ExitConfig, err}
	}
	return &client{
		base: "http://gateway", stateDir: dir,
		http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return statedir.DialSocket(ctx, dir)
		}}},
	}, nil
}

// name says in messages which gateway it is.
func (c *client) name() string {
	if c.stateDir != "" {
		return "the gateway of the state folder " + c.stateDir
	}
	return c.base
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

// noToken is the code of a gateway that asks for a token, or for another one.
const noToken = "invalid_api_key"

// passing reports whether the refusal is one of a moment: the gateway, or a proxy before it, is on its way.
func (e *apiError) passing() bool {
	switch e.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// absentError says that nobody listens where a gateway was looked for.
type absentError struct{ where, try string }

func (e *absentError) Error() string { return e.where + "\nTry: " + e.try }

// notRunning reports whether an error means that nobody listens.
func notRunning(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// cutOff reports whether an error means that somebody listened and then let go, as in a restart.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// explain turns an error of a request into one for people.
func (c *client) explain(ctx context.Context, err error) error {
	var refused *apiError
	var transport *url.Error
	switch {
	case err == nil || errors.As(err, &refused):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case notRunning(err) && c.stateDir != "":
		return &absentError{"no gateway runs with the state folder " + c.stateDir, "gateway run"}
	case notRunning(err):
		return &absentError{"no gateway answers at " + c.base, "gateway status on its machine"}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is another user's: %w\nTry: as that user, or with --url and --token", c.name(), fs.ErrPermission)
	case errors.As(err, &transport):
		return fmt.Errorf("%s does not answer: %w\nTry: gateway status", c.name(), transport.Err)
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
		doc.Error.Message = fmt.Sprintf("%s answered %s, which is no gateway's answer\nTry: another --url", c.name(), resp.Status)
	}
	if resp.StatusCode == http.StatusUnauthorized && doc.Error.Code == noToken {
		doc.Error.Message = c.base + " asks for a token"
		if c.token != "" {
			doc.Error.Message = c.base + " does not accept this token"
		}
		doc.Error.Message += "\nTry: GATEWAY_TOKEN or --token, with what auth.token is on its machine"
	}
	doc.Error.status = resp.StatusCode
	return nil, &doc.Error
}

// call makes a request and decodes the answer into `into`, unless that is nil.
func (c *client) call(ctx context.Context, method, path string, body, into any, header http.Header) error {
	resp, err := c.request(ctx, method, path, body, header)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of %s: %w\nTry: gateway status", c.name(), err)
	}
	return nil
}

// snapshot is the answer of GET /v1/lifecycle.
type snapshot struct {
	server.StatusDocument
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
