package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	sse "github.com/tmaxmax/go-sse"
)

const (
	// patience is how long a client waits for an answer. A restart must stay far below it.
	patience = 20 * time.Second
	// maxEvent bounds one event of a stream.
	maxEvent = 1 << 20
)

// client sends requests one after the other until ctx ends, and counts what it sees.
type client struct {
	address string
	path    string // of a plain request; empty for turns
	name    string // its session
	agent   string
	rest    time.Duration // after each answer
	sent    int
	t       *tally
}

// kinds of clients, by what their connections are like.
var kinds = map[string]func(*client, context.Context){
	"fresh":      (*client).fresh,
	"kept":       (*client).kept,
	"pipelined":  (*client).pipelined,
	"streamed":   (*client).streamed,
	"background": (*client).background,
	"websocket":  (*client).websocket,
}

// turnKinds are all of them.
var turnKinds = []string{"fresh", "kept", "pipelined", "streamed", "background", "websocket"}

// plainKinds are those that need nothing but HTTP.
var plainKinds = []string{"fresh", "kept"}

// request is the next turn, or a plain request, as it goes over the wire. tag is what the turn must answer.
func (c *client) request(more string) (raw, tag string) {
	if c.path != "" {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", c.path, c.address), ""
	}
	tag = fmt.Sprintf("%s-%d", c.name, c.sent)
	c.sent++
	body := fmt.Sprintf(`{"input":%q,"model":%q%s}`, tag, c.agent, more)
	return fmt.Sprintf("POST /v1/responses HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Session-Id: %s\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		c.address, c.name, tag, len(body), body), tag
}

// response is the part of a response's document that the clients look at.
type response struct {
	ID     string
	Status string
	Output []struct{ Content []struct{ Text string } }
}

// read reads one answer and counts it. It reports whether the connection goes on.
func (c *client) read(conn *bufio.Reader, tag string, began time.Time) bool {
	answer, err := http.ReadResponse(conn, nil)
	if err != nil {
		c.t.failure(err)
		return false
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.failure(err)
		return false
	}
	c.check(answer.StatusCode, body, tag, time.Since(began))
	return !answer.Close
}

// check counts a whole answer.
func (c *client) check(status int, body []byte, tag string, took time.Duration) {
	var got response
	switch {
	case status >= 500:
		c.t.lose(failed, fmt.Sprintf("%d %s", status, body))
	case status != http.StatusOK:
		c.t.lose(wrong, fmt.Sprintf("%d %s", status, body))
	case tag == "":
		c.t.answer(took)
	case json.Unmarshal(body, &got) != nil || got.Status != "completed" || len(got.Output) != 1 || got.Output[0].Content[0].Text != tag:
		c.t.lose(wrong, fmt.Sprintf("%s: %s", tag, body))
	default:
		c.acknowledged(got.ID, tag)
		c.t.answer(took)
	}
}

func (c *client) acknowledged(id, tag string) {
	var n int
	_, _ = fmt.Sscanf(tag[strings.LastIndexByte(tag, '-')+1:], "%d", &n)
	c.t.acknowledged(id, sentTag{c.name, n, tag})
}

func (c *client) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(context.Background(), "tcp", c.address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

// fresh makes a connection for every request.
func (c *client) fresh(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		conn, err := c.dial()
		if err != nil {
			c.t.failure(err)
			pause(ctx, time.Millisecond)
			continue
		}
		raw, tag := c.request("")
		if _, err := io.WriteString(conn, raw); err != nil {
			c.t.failure(err)
		} else {
			c.read(bufio.NewReader(conn), tag, began)
		}
		_ = conn.Close()
		c.rests(ctx)
	}
}

// kept sends all requests on one connection, for as long as the server lets it.
func (c *client) kept(ctx context.Context) { c.onConnections(ctx, 1) }

// pipelined sends the next request before the answer to the last one has come.
func (c *client) pipelined(ctx context.Context) { c.onConnections(ctx, 2) }

// onConnections sends requests n at a time.
func (c *client) onConnections(ctx context.Context, n int) {
	for ctx.Err() == nil {
		conn, err := c.dial()
		if err != nil {
			c.t.failure(err)
			pause(ctx, time.Millisecond)
			continue
		}
		answers := bufio.NewReader(conn)
		for open := true; open && ctx.Err() == nil; {
			began := time.Now()
			_ = conn.SetDeadline(began.Add(patience))
			var all strings.Builder
			tags := make([]string, n)
			for i := range tags {
				var raw string
				raw, tags[i] = c.request("")
				all.WriteString(raw)
			}
			if _, err := io.WriteString(conn, all.String()); err != nil {
				c.t.failure(err)
				break
			}
			for i, tag := range tags {
				if open = c.read(answers, tag, began); !open {
					// A server that closes after an answer has not taken what follows it: that is no loss as long as
					// it says so, and the client sends it again.
					c.again(ctx, tags[i+1:], began)
					break
				}
			}
			c.rests(ctx)
		}
		_ = conn.Close()
	}
}

// again sends the same turns once more, each on a connection of its own: their keys make no second ones.
func (c *client) again(ctx context.Context, tags []string, began time.Time) {
	for _, tag := range tags {
		status, body, err := c.call(ctx, http.MethodPost, "/v1/responses", fmt.Sprintf(`{"input":%q,"model":%q}`, tag, c.agent), tag)
		if err != nil {
			c.t.failure(err)
			continue
		}
		c.check(status, body, tag, time.Since(began))
	}
}

// call makes one request with Go's own client.
func (c *client) call(ctx context.Context, method, path, body, key string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if key != "" {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", key)
		r.Header.Set("X-Session-Id", c.name)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	got, err := io.ReadAll(answer.Body)
	return answer.StatusCode, got, err
}

// streamed reads the events of each turn as they come, and goes on after the last one when it is told that the
// gateway restarts.
func (c *client) streamed(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		tag := fmt.Sprintf("%s-%d", c.name, c.sent)
		c.sent++
		s := stream{c: c, tag: tag, last: -1}
		err := s.follow(ctx, http.MethodPost, "/v1/responses", fmt.Sprintf(`{"input":%q,"model":%q,"stream":true}`, tag, c.agent))
		for err == nil && !s.ended && s.id != "" && s.told {
			c.t.comeBack()
			s.told = false
			err = s.follow(ctx, http.MethodGet, fmt.Sprintf("/v1/responses/%s?stream=true&starting_after=%d", s.id, s.last), "")
		}
		switch {
		case err != nil:
			c.t.failure(err)
		case !s.ended:
			c.t.lose(cut, fmt.Sprintf("%s: the stream ended after event %d", tag, s.last))
		case s.text.String() != tag:
			c.t.lose(wrong, fmt.Sprintf("%s: %q", tag, s.text.String()))
		default:
			c.t.answer(time.Since(began))
		}
		c.rests(ctx)
	}
}

// stream is one streamed answer, over any number of connections.
type stream struct {
	c       *client
	tag, id string
	last    int
	text    strings.Builder
	told    bool // to come back
	ended   bool
}

func (s *stream) follow(ctx context.Context, method, path, body string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.c.address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", s.tag)
	r.Header.Set("X-Session-Id", s.c.name)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		s.c.t.lose(failed, fmt.Sprintf("%s: %s %s", s.tag, answer.Status, text))
		return errors.New(answer.Status)
	}
	for e, err := range sse.Read(answer.Body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return err
		}
		if err := s.take(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) take(e sse.Event) error {
	var got struct {
		Number   int      `json:"sequence_number"`
		Delta    string   `json:"delta"`
		Response response `json:"response"`
	}
	if err := json.Unmarshal([]byte(e.Data), &got); err != nil {
		return fmt.Errorf("event %s: %w", e.Type, err)
	}
	switch e.Type {
	case "shutdown", "error":
		s.told = true
		return nil
	case "waiting":
		return nil
	}
	switch {
	case got.Number <= s.last:
		s.c.t.lose(doubled, fmt.Sprintf("%s: event %d after %d", s.tag, got.Number, s.last))
	case got.Number > s.last+1:
		s.c.t.lose(missed, fmt.Sprintf("%s: event %d after %d", s.tag, got.Number, s.last))
	}
	s.last = got.Number
	switch e.Type {
	case "response.created":
		s.id = got.Response.ID
		s.c.acknowledged(s.id, s.tag)
	case "response.output_item.added":
		s.text.Reset()
	case "response.output_text.delta":
		s.text.WriteString(got.Delta)
	case "response.completed":
		s.ended = true
	}
	return nil
}

// background has each turn accepted, and then asks for it until it has ended.
func (c *client) background(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		tag := fmt.Sprintf("%s-%d", c.name, c.sent)
		c.sent++
		status, body, err := c.call(ctx, http.MethodPost, "/v1/responses", fmt.Sprintf(`{"input":%q,"model":%q,"background":true}`, tag, c.agent), tag)
		var got response
		if err == nil && status == http.StatusOK && json.Unmarshal(body, &got) == nil {
			c.acknowledged(got.ID, tag)
			for err == nil && status == http.StatusOK && !bytes.Contains(body, []byte(`"status":"completed"`)) && time.Since(began) < patience {
				pause(ctx, 2*time.Millisecond)
				status, body, err = c.call(ctx, http.MethodGet, "/v1/responses/"+got.ID, "", "")
			}
		}
		if err != nil {
			c.t.failure(err)
		} else {
			c.check(status, body, tag, time.Since(began))
		}
		c.rests(ctx)
	}
}

// rests waits for c.rest on average. Clients that rested equally long would all ask at once ever after a restart.
func (c *client) rests(ctx context.Context) {
	if c.rest > 0 {
		pause(ctx, rand.N(2*c.rest))
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
