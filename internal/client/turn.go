package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	sse "github.com/tmaxmax/go-sse"

	"gateway/internal/advice"
	"gateway/queue"
)

const (
	// eventLimit bounds one event of a stream, in bytes: the last event holds the whole answer.
	eventLimit = 512 << 20
	// emptyPause is the time to the next request after a stream without new events.
	emptyPause = 50 * time.Millisecond
)

// Patience bounds the wait for a gateway that does not answer. The zero value waits until the context ends.
type Patience struct {
	// Limit is how long one absence of the gateway may last; 0 for no limit.
	Limit time.Duration
	// Present makes a submission fail immediately when no gateway answers the first attempt.
	Present bool
	// Away is called before each retry; nil for none.
	Away func()
}

// persist retries f until it succeeds or fails permanently, because a gateway that restarts is soon back.
func (p Patience) persist(ctx context.Context, f func() error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 20*time.Millisecond, time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		var refused *APIError
		if errors.As(err, &refused) && !refused.Passing() {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(p.Limit), backoff.WithNotify(func(error, time.Duration) {
		if p.Away != nil {
			p.Away()
		}
	}))
	return err
}

// Submission is a message for an agent. Empty fields leave the choice to the gateway.
type Submission struct {
	Session, Agent, Lane, Mode, Input string
	// Key is the idempotency key; when it is empty, Submit generates one.
	Key string
}

// Submit sends a turn and returns its id. The key makes it safe to repeat the request after a lost answer. When ctx ends
// before the answer, the error names the key.
func (c *Client) Submit(ctx context.Context, s Submission, p Patience) (id string, err error) {
	if s.Key == "" {
		s.Key = "send-" + rand.Text()
	}
	header := http.Header{"X-Session-Id": {s.Session}, "Idempotency-Key": {s.Key}}
	if s.Lane != "" {
		header["X-Lane"] = []string{s.Lane}
	}
	if s.Mode != "" {
		header["X-Queue-Mode"] = []string{s.Mode}
	}
	body := map[string]any{"input": s.Input, "background": true}
	if s.Agent != "" {
		body["model"] = s.Agent
	}
	var doc struct {
		ID string `json:"id"`
	}
	met := !p.Present // whether a gateway has answered
	err = p.persist(ctx, func() error {
		err := c.call(ctx, http.MethodPost, "/v1/responses", body, &doc, header)
		var refused *APIError
		if err != nil && !met && !errors.As(err, &refused) && !CutOff(err) {
			return backoff.Permanent(err)
		}
		met = true
		return err
	})
	switch {
	case ctx.Err() != nil:
		return "", advice.Errorf("%w before the gateway answered; it may have accepted the turn", context.Cause(ctx)).Tryf("the same command with --key %s, which makes no second turn", s.Key)
	case err == nil && doc.ID == "":
		err = advice.Errorf("the answer of %s names no turn", c.Name()).Try("gateway status")
	}
	return doc.ID, err
}

// Event is a step of a turn, as the Responses API streams it.
type Event struct {
	Kind   string `json:"-"`
	Number int    `json:"sequence_number"`
	// Delta is a piece of the answer.
	Delta string `json:"delta"`
	// Reason is why the turn waits.
	Reason   string `json:"reason"`
	Response struct {
		Status string `json:"status"`
		Error  struct {
			Message string `json:"message"`
		} `json:"error"`
		Incomplete struct {
			Reason string `json:"reason"`
		} `json:"incomplete_details"`
	} `json:"response"`
}

// Kinds of events that are relevant to a client that follows a turn.
const (
	EventWaiting  = "waiting"                    // the turn has not started; Reason is why
	EventShutdown = "shutdown"                   // the gateway ends the stream; the turn continues
	EventAttempt  = "response.output_item.added" // an attempt begins: the text so far is void
	EventDelta    = "response.output_text.delta"
)

// Last reports whether the event is the turn's last.
func (e Event) Last() bool {
	switch e.Kind {
	case "response.completed", "response.failed", "response.incomplete":
		return true
	}
	return false
}

// Follow calls take with each event of a turn, once and in order, until the last event, across restarts of the gateway and
// any number of connections. An error of take ends it.
func (c *Client) Follow(ctx context.Context, id string, p Patience, take func(Event) error) error {
	f := &follower{last: -1, take: take}
	for !f.ended {
		before := f.last
		if err := p.persist(ctx, func() error { return c.readStream(ctx, id, f) }); err != nil {
			return err
		}
		if f.last == before && !pause(ctx, emptyPause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// follower passes each event on once.
type follower struct {
	last  int // the number of the last event; -1 for none
	ended bool
	take  func(Event) error
}

func (f *follower) pass(kind, data string) error {
	e := Event{}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("reading an event of the gateway: %w", err)
	}
	switch e.Kind = kind; {
	case kind == EventWaiting || kind == EventShutdown: // events without a number
		return f.take(e)
	case kind == "error" || e.Number <= f.last: // the stream ends but the turn continues, or an earlier connection brought the event
		return nil
	}
	f.last, f.ended = e.Number, e.Last()
	return f.take(e)
}

// readStream reads the events that f has not seen, until the connection ends. The end is not an error: the next
// connection continues after the last event.
func (c *Client) readStream(ctx context.Context, id string, f *follower) error {
	q := url.Values{"stream": {"true"}}
	if f.last >= 0 {
		q.Set("starting_after", strconv.Itoa(f.last))
	}
	body, err := c.stream(ctx, "/v1/responses/"+url.PathEscape(id)+"?"+q.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	for e, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: eventLimit}) {
		if err != nil {
			return nil // cut off
		}
		if err := f.pass(e.Type, e.Data); err != nil {
			return backoff.Permanent(err)
		}
	}
	return nil
}

// Settled returns a turn whose events have ended, or that was just accepted. It retries as Follow does.
func (c *Client) Settled(ctx context.Context, id string, p Patience) (t queue.Turn, err error) {
	return t, p.persist(ctx, func() error {
		t, err = c.Turn(ctx, id)
		return err
	})
}

// pause waits for d; it returns false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
