package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/xid"
	"github.com/spf13/cobra"
	sse "github.com/tmaxmax/go-sse"
	"golang.org/x/term"

	"gateway/queue"
)

const (
	// inputLimit bounds what is read from standard input, in bytes.
	inputLimit = 16 << 20
	// absence is how long a gateway that went away may take to come back before `send` stops waiting. The
	// turn goes on all the same.
	absence = 30 * time.Second
	// eventLimit bounds one event of a stream, in bytes: the last one holds the whole answer.
	eventLimit = 512 << 20
)

type sending struct {
	session, agent, lane, key string
	noWait, asJSON            bool
	timeout                   time.Duration
}

func newSendCommand(o *options) *cobra.Command {
	f := &sending{}
	cmd := &cobra.Command{
		Use:   "send [TEXT | -]",
		Short: "Hand a turn to an agent and print the answer as it comes",
		Long: `Hand a turn to an agent and print the answer as it comes. With - or without TEXT the input is read from
standard input. A restart of the gateway does not disturb it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			input, err := readInput(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if f.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("no answer within %s", f.timeout))
				defer cancel()
			}
			return c.send(ctx, cmd, f, input)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.session, "session", "s", "main", "the session; its turns run one at a time, in order")
	flags.StringVarP(&f.agent, "agent", "a", "", "the agent; default_agent when empty")
	flags.StringVar(&f.lane, "lane", "", "the lane; main when empty")
	flags.StringVar(&f.key, "key", "", "idempotency key: a repeat with the same key is the same turn")
	flags.BoolVar(&f.noWait, "no-wait", false, "print the turn's id once it is accepted, and return")
	flags.BoolVar(&f.asJSON, "json", false, "print the finished turn as JSON")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for the answer; 0 for as long as it takes")
	return cmd
}

func readInput(stdin io.Reader, args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		return args[0], nil
	}
	if f, ok := stdin.(*os.File); ok && len(args) == 0 && term.IsTerminal(int(f.Fd())) {
		return "", usageError(errors.New("nothing to send\nTry: gateway send \"hello\", or gateway send - to read standard input"))
	}
	b, err := io.ReadAll(io.LimitReader(stdin, inputLimit+1))
	if err != nil {
		return "", fmt.Errorf("reading standard input: %w", err)
	}
	if len(b) > inputLimit {
		return "", fmt.Errorf("standard input is larger than %d bytes\nTry: a shorter input", inputLimit)
	}
	input := strings.TrimRight(string(b), "\r\n")
	if input == "" {
		return "", usageError(errors.New("standard input is empty\nTry: gateway send \"hello\""))
	}
	return input, nil
}

func (c *client) send(ctx context.Context, cmd *cobra.Command, f *sending, input string) error {
	id, err := c.submit(ctx, f, input)
	if err != nil {
		return err
	}
	kept := func(err error) error {
		return fmt.Errorf("%w; turn %s is accepted and goes on\nTry: gateway turns show %s", err, id, id)
	}
	if f.noWait && !f.asJSON {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), id)
		return err
	}
	if !f.noWait {
		a := &answerPrinter{out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), quiet: f.asJSON, next: -1}
		if err := c.follow(ctx, id, a); err != nil {
			return kept(err)
		}
	}
	var t queue.Turn
	if err := c.persist(ctx, func() error { return c.call(ctx, http.MethodGet, "/v1/turns/"+id, nil, &t, nil) }); err != nil {
		return kept(err)
	}
	if f.asJSON {
		if err := printJSON(cmd.OutOrStdout(), map[string]any{
			"id": t.ID, "session": t.Session, "status": t.Status, "attempt": t.Attempt, "output": t.Output, "error": t.Error,
		}); err != nil {
			return err
		}
	}
	if t.Status == queue.Failed || t.Status == queue.Cancelled {
		return fmt.Errorf("the turn %s: %s\nTry: gateway turns retry %s", t.Status, t.Error, t.ID)
	}
	return nil
}

// submit hands the turn over; its key makes it safe to do so again after a lost answer.
func (c *client) submit(ctx context.Context, f *sending, input string) (id string, err error) {
	key := f.key
	if key == "" {
		key = "send-" + xid.New().String()
	}
	header := http.Header{"X-Session-Id": {f.session}, "Idempotency-Key": {key}}
	if f.lane != "" {
		header["X-Lane"] = []string{f.lane}
	}
	body := map[string]any{"input": input, "background": true}
	if f.agent != "" {
		body["model"] = f.agent
	}
	var doc struct {
		ID string `json:"id"`
	}
	first := true
	err = c.persist(ctx, func() error {
		resp, err := c.request(ctx, http.MethodPost, "/v1/responses", body, header)
		if err != nil {
			if first && notRunning(err) {
				return &exitError{1, c.explain(err)} // it was not there to begin with
			}
			first = false
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		return json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(&doc)
	})
	return doc.ID, err
}

// persist tries until f succeeds or fails for good: a gateway that is away may be back in a moment.
func (c *client) persist(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(absence)
	wait := 20 * time.Millisecond
	for {
		err := f()
		var refused *apiError
		var final *exitError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &final):
			return final.err
		case errors.As(err, &refused) && refused.status != http.StatusServiceUnavailable:
			return err
		case time.Now().After(deadline):
			return c.explain(err)
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
		wait = min(2*wait, time.Second)
	}
}

// follow prints the turn's stream to its end, across any number of connections.
func (c *client) follow(ctx context.Context, id string, a *answerPrinter) error {
	for !a.ended {
		before := a.next
		err := c.persist(ctx, func() error { return c.readStream(ctx, id, a) })
		if err != nil {
			return err
		}
		if a.next == before && !a.ended && !pause(ctx, 50*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return a.finish()
}

func (c *client) readStream(ctx context.Context, id string, a *answerPrinter) error {
	q := url.Values{"stream": {"true"}}
	if a.next >= 0 {
		q.Set("starting_after", strconv.Itoa(a.next))
	}
	resp, err := c.request(ctx, http.MethodGet, "/v1/responses/"+id+"?"+q.Encode(), nil, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for e, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: eventLimit}) {
		if err != nil {
			return nil //nolint:nilerr // cut off: the next connection goes on behind the last number
		}
		if err := a.take(e.Type, e.Data); err != nil {
			return &exitError{1, err}
		}
	}
	return nil
}

// answerPrinter prints the deltas of a response, each once.
type answerPrinter struct {
	out, notes io.Writer
	quiet      bool
	next       int // the last number seen; -1 for none
	items      int
	text       string // the end of what was printed
	ended      bool
}

func (a *answerPrinter) take(kind, data string) error {
	var e struct {
		Number int    `json:"sequence_number"`
		Delta  string `json:"delta"`
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("the gateway sent an event that cannot be read: %w", err)
	}
	switch kind {
	case "error", "shutdown":
		return nil // the stream ends here, the turn does not
	case "response.output_item.added":
		a.items++
		if a.items > 1 && !a.quiet {
			_, _ = fmt.Fprintln(a.notes, "\ngateway: the attempt was interrupted and begins again; disregard what came before")
		}
	case "response.output_text.delta":
		if !a.quiet {
			if _, err := io.WriteString(a.out, e.Delta); err != nil {
				return fmt.Errorf("printing: %w", err)
			}
		}
		a.text = e.Delta
	case "response.completed", "response.failed", "response.incomplete":
		a.ended = true
	}
	a.next = max(a.next, e.Number)
	return nil
}

// finish ends the last line.
func (a *answerPrinter) finish() error {
	if a.quiet || strings.HasSuffix(a.text, "\n") {
		return nil
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
