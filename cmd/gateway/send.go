package main

import (
	"context"
	"crypto/rand"
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
	"unicode/utf8"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"
	sse "github.com/tmaxmax/go-sse"
	"golang.org/x/term"

	"gateway/internal/config"
	"gateway/queue"
)

const (
	// inputLimit bounds what is read from standard input: no gateway takes more.
	inputLimit = config.MaxInput
	// absence is how long a gateway that went away may take to come back before `send` stops waiting. The
	// turn goes on all the same.
	absence = 30 * time.Second
	// eventLimit bounds one event of a stream, in bytes: the last one holds the whole answer.
	eventLimit = 512 << 20
	// handOver is what a turn gets to be accepted, however short the wait for its answer: with its id one
	// can come back.
	handOver = 2 * time.Second
)

type sending struct {
	session, agent, lane, key, mode string
	noWait, asJSON                  bool
	timeout                         time.Duration
}

func newSendCommand(o *options) *cobra.Command {
	f := &sending{}
	cmd := &cobra.Command{
		Use:   "send [TEXT | -]",
		Short: "Hand a turn to an agent and print the answer as it comes",
		Long: `Hand a turn to an agent and print the answer as it comes. With - or without TEXT the input is read from
standard input. A restart of the gateway does not disturb it. With Ctrl-C the command ends and the turn goes on.
Exits with 1 when the turn failed or was cancelled.`,
		Example: `  gateway send "hello"
  gateway send --session review --agent claude "Read the diff and tell me what is odd"
  git diff | gateway send --agent claude -
  id=$(gateway send --no-wait "later") && gateway turns show $id`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%d arguments are given, but TEXT is one\nTry: gateway send %s", len(args), strconv.Quote(strings.Join(args, " ")))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("session") && f.session == "" {
				return usageError(errors.New("--session is empty\nTry: --session NAME, or without it for the session main"))
			}
			input, err := readInput(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return c.send(ctx, cmd, f, input)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.session, "session", "s", "main", "the session; its turns run one at a time, in order")
	flags.StringVarP(&f.agent, "agent", "a", "", "the agent; default_agent when empty")
	flags.StringVar(&f.lane, "lane", "", "the lane; main when empty")
	flags.StringVar(&f.mode, "mode", "", "followup, collect or interrupt: what the turn does when others of its session wait or run")
	flags.StringVar(&f.key, "key", "", "idempotency key: a repeat with the same key is the same turn")
	flags.BoolVar(&f.noWait, "no-wait", false, "print the turn's id once it is accepted, and return")
	flags.BoolVar(&f.asJSON, "json", false, "print the finished turn as JSON")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for the answer; 0 for as long as it takes")
	o.completeSending(cmd)
	return cmd
}

// bounded is ctx with the time limit, which is at least the given one; without a time limit it is ctx.
func (f *sending) bounded(ctx context.Context, least time.Duration) (context.Context, context.CancelFunc) {
	if f.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	limit := max(f.timeout, least)
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
}

func readInput(stdin io.Reader, args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		if !utf8.ValidString(args[0]) {
			return "", usageError(errors.New("TEXT is not UTF-8, and would not reach the agent as it is\nTry: iconv -f LATIN1 -t UTF-8 FILE | gateway send -"))
		}
		return args[0], nil
	}
	if f, ok := stdin.(*os.File); ok && len(args) == 0 && term.IsTerminal(int(f.Fd())) {
		return "", usageError(errors.New("nothing to send\nTry: gateway send \"hello\", or gateway send - to read standard input"))
	}
	b, err := io.ReadAll(io.LimitReader(stdin, int64(inputLimit)+1))
	if err != nil {
		return "", fmt.Errorf("reading standard input: %w", err)
	}
	if len(b) > int(inputLimit) {
		return "", fmt.Errorf("standard input is larger than %s, the most that turns.max_input can be\nTry: a shorter input, or a file that the agent reads by itself", inputLimit)
	}
	if !utf8.Valid(b) {
		return "", usageError(errors.New("standard input is not UTF-8, and would not reach the agent as it is\nTry: iconv -f LATIN1 -t UTF-8 FILE | gateway send -, or the path of a file that the agent reads by itself"))
	}
	input := strings.TrimRight(string(b), "\r\n")
	if input == "" {
		return "", usageError(errors.New("standard input is empty\nTry: gateway send \"hello\""))
	}
	return input, nil
}

func (c *client) send(ctx context.Context, cmd *cobra.Command, f *sending, input string) error {
	accepting, done := f.bounded(ctx, handOver)
	defer done()
	ctx, stop := f.bounded(ctx, 0)
	defer stop()
	id, err := c.submit(accepting, f, input)
	if err != nil {
		return err
	}
	if f.noWait && !f.asJSON {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), id)
		return err
	}
	if f.noWait {
		ctx = accepting // there is nothing to wait for but the document
	} else {
		a := &answerPrinter{out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), quiet: f.asJSON, last: -1}
		if err := c.follow(ctx, id, a); err != nil {
			return kept(id, err)
		}
	}
	var t queue.Turn
	if err := c.persist(ctx, func() error { return c.call(ctx, http.MethodGet, "/v1/turns/"+url.PathEscape(id), nil, &t, nil) }); err != nil {
		return kept(id, err)
	}
	if f.asJSON {
		if err := printJSON(cmd.OutOrStdout(), map[string]any{
			"id": t.ID, "session": t.Session, "status": t.Status, "attempt": t.Attempt, "runs": t.Runs, "output": t.Output, "error": t.Error,
		}); err != nil {
			return err
		}
	}
	switch t.Status {
	case queue.Failed:
		return fmt.Errorf("turn %s failed: %s\nTry: gateway turns retry %s", t.ID, t.Error, t.ID)
	case queue.Cancelled:
		return fmt.Errorf("turn %s was cancelled\nTry: gateway turns retry %s", t.ID, t.ID)
	default:
		return nil
	}
}

// kept says of a turn that was accepted where it can be found although err ended the wait for it.
func kept(id string, err error) error {
	if absent, ok := errors.AsType[*absentError](err); ok {
		return fmt.Errorf("%s any more; turn %s is accepted, and goes on when one does again\nTry: %s, then gateway turns show %s", absent.where, id, absent.try, id)
	}
	why, _, _ := strings.Cut(err.Error(), "\nTry:")
	return fmt.Errorf("%s; turn %s is accepted and goes on\nTry: gateway turns show %s", why, id, id)
}

// submit hands the turn over; its key makes it safe to do so again after a lost answer.
func (c *client) submit(ctx context.Context, f *sending, input string) (id string, err error) {
	key := f.key
	if key == "" {
		key = "send-" + rand.Text()
	}
	header := http.Header{"X-Session-Id": {f.session}, "Idempotency-Key": {key}}
	if f.lane != "" {
		header["X-Lane"] = []string{f.lane}
	}
	if f.mode != "" {
		header["X-Queue-Mode"] = []string{f.mode}
	}
	body := map[string]any{"input": input, "background": true}
	if f.agent != "" {
		body["model"] = f.agent
	}
	var doc struct {
		ID string `json:"id"`
	}
	met := false // whether anybody was there at all
	err = c.persist(ctx, func() error {
		err := c.call(ctx, http.MethodPost, "/v1/responses", body, &doc, header)
		var refused *apiError
		if err != nil && !met && !errors.As(err, &refused) && !cutOff(err) {
			return backoff.Permanent(err)
		}
		met = true
		return err
	})
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%w before the gateway answered; it may have accepted the turn\nTry: the same again with --key %s, which makes no second turn", context.Cause(ctx), key)
	case err == nil && doc.ID == "":
		err = fmt.Errorf("%s named no turn in its answer\nTry: gateway status", c.name())
	}
	return doc.ID, err
}

// persist tries until f succeeds or fails for good: a gateway that is away may be back in a moment.
func (c *client) persist(ctx context.Context, f func() error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 20*time.Millisecond, time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		var refused *apiError
		if errors.As(err, &refused) && !refused.passing() {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(absence))
	return err
}

// follow prints the turn's stream to its end, across any number of connections.
func (c *client) follow(ctx context.Context, id string, a *answerPrinter) error {
	for !a.ended {
		before := a.last
		if err := c.persist(ctx, func() error { return c.readStream(ctx, id, a.last, a.take) }); err != nil {
			return errors.Join(a.endLine(), err)
		}
		if a.last == before && !pause(ctx, 50*time.Millisecond) {
			return errors.Join(a.endLine(), context.Cause(ctx))
		}
	}
	return a.endLine()
}

// readStream takes the events of a turn after number last, -1 for all, until the connection ends; that is no error,
// for the next connection goes on behind the last number.
func (c *client) readStream(ctx context.Context, id string, last int, take func(kind, data string) error) error {
	q := url.Values{"stream": {"true"}}
	if last >= 0 {
		q.Set("starting_after", strconv.Itoa(last))
	}
	resp, err := c.request(ctx, http.MethodGet, "/v1/responses/"+url.PathEscape(id)+"?"+q.Encode(), nil, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return c.explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	for e, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: eventLimit}) {
		if err != nil {
			return nil //nolint:nilerr // cut off
		}
		if err := take(e.Type, e.Data); err != nil {
			return backoff.Permanent(err)
		}
	}
	return nil
}

// answerPrinter prints the deltas of a response, each once. What an interrupted attempt had printed cannot be
// taken back; the next attempt goes on behind it for as long as it says the same, so that what a script
// reads is the answer and nothing else. When it says something different, a note tells.
type answerPrinter struct {
	out, notes io.Writer
	quiet      bool
	last       int    // the number of the last event taken; -1 for none
	void       string // printed by attempts that were interrupted, of which this one has not said the same yet
	text       string // printed, as far as it is of the latest attempt
	midLine    bool
	ended      bool
}

func (a *answerPrinter) take(kind, data string) error {
	var e struct {
		Number int    `json:"sequence_number"`
		Delta  string `json:"delta"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("the gateway sent an event that cannot be read: %w", err)
	}
	if kind == "waiting" && !a.quiet {
		_, _ = fmt.Fprintln(a.notes, "gateway: the turn waits: "+e.Reason)
	}
	if kind == "error" || kind == "shutdown" || kind == "waiting" || e.Number <= a.last {
		return nil // the stream ends here but the turn does not; or it was taken on another connection
	}
	a.last = e.Number
	switch kind {
	case "response.output_item.added":
		a.void, a.text = a.text+a.void, ""
	case "response.output_text.delta":
		return a.delta(e.Delta)
	case "response.completed", "response.failed", "response.incomplete":
		a.ended = true
		if a.void != "" { // the answer is shorter than what was printed
			return a.startOver("")
		}
	}
	return nil
}

// delta prints what is new of an attempt's text.
func (a *answerPrinter) delta(text string) error {
	if a.quiet {
		return nil
	}
	same := min(len(text), len(a.void))
	if text[:same] != a.void[:same] {
		return a.startOver(text)
	}
	a.void, a.text = a.void[same:], a.text+text
	return a.print(text[same:])
}

// startOver prints an attempt's text from its beginning, because it differs from what was printed.
func (a *answerPrinter) startOver(text string) error {
	if err := a.endLine(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.notes, "gateway: the attempt was interrupted and begins again; disregard what came before")
	a.void, a.text = "", a.text+text
	return a.print(a.text)
}

func (a *answerPrinter) print(text string) error {
	if a.quiet || text == "" {
		return nil
	}
	if _, err := io.WriteString(a.out, text); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	a.midLine = !strings.HasSuffix(text, "\n")
	return nil
}

// endLine adds the newline that the text lacks.
func (a *answerPrinter) endLine() error {
	if a.midLine {
		return a.print("\n")
	}
	return nil
}
