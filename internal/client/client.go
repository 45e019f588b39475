// Package client is the commands' client of a gateway. It depends on the documents that a gateway returns, and not on the
// process: the answer to any request may come from a successor, and a request to a gateway that is restarting is retried.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"gateway/internal/advice"
	"gateway/internal/statedir"
)

// answerLimit bounds one answer, in bytes.
const answerLimit = 64 << 20

// Client sends requests to a gateway, over the control socket of its state folder or over its URL.
type Client struct {
	http     *http.Client
	base     string
	token    string
	stateDir string // empty for a remote gateway
}

// At returns a client of the gateway at a URL. The first request connects. The context is the only time limit: while a
// gateway restarts, connections wait. The token is empty for a gateway without tokens.
func At(base, token string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, advice.Errorf("%q is not an address", base).Try("--url http://127.0.0.1:18789")
	}
	return &Client{http: &http.Client{}, base: strings.TrimSuffix(base, "/"), token: token}, nil
}

// In returns a client of the gateway of a state folder, over its control socket, which needs no token. Otherwise it works
// like the client that At returns.
func In(stateDir string) *Client {
	return &Client{
		base: "http://gateway", stateDir: stateDir,
		http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return statedir.DialSocket(ctx, stateDir)
		}}},
	}
}

// Name is the gateway's name in messages.
func (c *Client) Name() string {
	if c.stateDir != "" {
		return "the gateway of the state folder " + c.stateDir
	}
	return c.base
}

// APIError is a refusal by the gateway.
type APIError struct {
	Status  int    `json:"-"` // of HTTP
	Message string `json:"message"`
	Code    string `json:"code"`
	Try     string `json:"-"` // the gateway sends it at the end of the message; empty for none
}

func (e *APIError) Error() string { return advice.Text(e.Message, e.Try) }

// NoToken is the code of a refusal because the token is missing or wrong.
const NoToken = "invalid_api_key"

// Passing reports whether the refusal is temporary: the gateway is restarting, or a proxy does not reach it.
func (e *APIError) Passing() bool {
	switch e.Status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// AbsentError reports that no gateway listens at the address or in the state folder.
type AbsentError struct{ Where, Try string }

func (e *AbsentError) Error() string { return advice.Text(e.Where, e.Try) }

// notRunning reports whether an error means that no process listens.
func notRunning(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// CutOff reports whether an error means that a process accepted the connection and closed it, as in a restart.
func CutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// StateDir is the state folder; empty for a remote gateway.
func (c *Client) StateDir() string { return c.stateDir }

// URL is the address of a remote gateway.
func (c *Client) URL() string { return c.base }

// CloseIdleConnections closes connections that are not in use.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// explain turns an error of a request into one for people.
func (c *Client) explain(ctx context.Context, err error) error {
	var refused *APIError
	var transport *url.Error
	switch {
	case err == nil || errors.As(err, &refused):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case notRunning(err) && c.stateDir != "":
		return &AbsentError{"no gateway is running with the state folder " + c.stateDir, "gateway run"}
	case notRunning(err):
		return &AbsentError{"no gateway answers at " + c.base, "gateway status on its machine"}
	case errors.Is(err, fs.ErrPermission):
		return advice.Errorf("%s belongs to another user: %w", c.Name(), fs.ErrPermission).Try("as that user, or with --url and --token")
	case errors.As(err, &transport):
		return advice.Errorf("%s does not answer: %w", c.Name(), transport.Err).Try("gateway status")
	default:
		return err
	}
}

// request sends a request. A status of 300 or more is an APIError.
func (c *Client) request(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
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
		Error APIError `json:"error"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if json.Unmarshal(text, &doc) != nil || doc.Error.Message == "" {
		doc.Error.Message, doc.Error.Try = fmt.Sprintf("%s returned %s, which is not the answer of a gateway", c.Name(), resp.Status), "another --url"
	} else {
		doc.Error.Message, doc.Error.Try = advice.Sentence(doc.Error.Message)
	}
	if resp.StatusCode == http.StatusUnauthorized && doc.Error.Code == NoToken {
		doc.Error.Message = c.base + " needs a token"
		if c.token != "" {
			doc.Error.Message = c.base + " does not accept this token"
		}
		doc.Error.Try = "GATEWAY_TOKEN or --token, with the auth.token of the gateway"
	}
	doc.Error.Status = resp.StatusCode
	return nil, &doc.Error
}

// call sends a request and decodes the answer into `into`, unless `into` is nil.
func (c *Client) call(ctx context.Context, method, path string, body, into any, header http.Header) error {
	resp, err := c.request(ctx, method, path, body, header)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(into); err != nil {
		return c.unreadable(err)
	}
	return nil
}

// stream requests events. The error is for people.
func (c *Client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := c.request(ctx, http.MethodGet, path, nil, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		_ = resp.Body.Close()
		return nil, c.unreadable(fmt.Errorf("no stream of events but %q", resp.Header.Get("Content-Type")))
	}
	return resp.Body, nil
}

// unreadable is the error for an answer that cannot be from a gateway.
func (c *Client) unreadable(err error) error {
	return advice.Errorf("reading the answer of %s: %w", c.Name(), err).Try("gateway status")
}
