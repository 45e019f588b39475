package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"gateway/internal/advice"
	"gateway/internal/client"
	"gateway/internal/config"
	"gateway/internal/terminal"
	"gateway/queue"
)

const (
	// inputLimit bounds what is read from standard input, in bytes: no gateway accepts more.
	inputLimit = config.MaxInput
	// absence is how long `send` waits for a gateway that was lost. The turn continues without `send`.
	absence = 30 * time.Second
	// handOver is the least time for a turn to be accepted, however short --timeout is: the id finds the turn later.
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
		Short: "Send a turn to an agent and stream the answer",
		Long: `Send a turn to an agent and stream the answer. With - or without TEXT the input is read from
standard input. The answer continues after a restart of the gateway. Ctrl-C ends the command, and the turn continues.
Exits with 1 when the turn failed or was cancelled.`,
		Example: `  gateway send "hello"
  gateway send --session review --agent claude "Read the diff and list what looks wrong"
  git diff | gateway send --agent claude -
  id=$(gateway send --no-wait "later") && gateway turns show $id`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return advice.Errorf("%d arguments are given, but TEXT is one", len(args)).Tryf("gateway send %s", strconv.Quote(strings.Join(args, " ")))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("session") && f.session == "" {
				return usageError(advice.Errorf("--session is empty").Try("--session NAME, or without it for the session main"))
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
			return send(ctx, cmd, c, f, input)
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
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for the answer; 0 waits without a limit")
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
			return "", usageError(advice.Errorf("TEXT is not UTF-8, and would reach the agent changed").Try("iconv -f LATIN1 -t UTF-8 FILE | gateway send -"))
		}
		return args[0], nil
	}
	if len(args) == 0 && terminal.Is(stdin) {
		return "", usageError(advice.Errorf("nothing to send").Try("gateway send \"hello\", or gateway send - to read standard input"))
	}
	b, err := io.ReadAll(io.LimitReader(stdin, int64(inputLimit)+1))
	if err != nil {
		return "", fmt.Errorf("reading standard input: %w", err)
	}
	if len(b) > int(inputLimit) {
		return "", advice.Errorf("standard input is larger than %s, the maximum of turns.max_input", inputLimit).Try("a shorter input, or the path of a file that the agent reads")
	}
	if !utf8.Valid(b) {
		return "", usageError(advice.Errorf("standard input is not UTF-8, and would reach the agent changed").Try("iconv -f LATIN1 -t UTF-8 FILE | gateway send -, or the path of a file that the agent reads"))
	}
	input := strings.TrimRight(string(b), "\r\n")
	if input == "" {
		return "", usageError(advice.Errorf("standard input is empty").Try("gateway send \"hello\""))
	}
	return input, nil
}

func send(ctx context.Context, cmd *cobra.Command, c *client.Client, f *sending, input string) error {
	accepting, done := f.bounded(ctx, handOver)
	defer done()
	ctx, stop := f.bounded(ctx, 0)
	defer stop()
	patience := client.Patience{Limit: absence, Present: true}
	id, err := c.Submit(accepting, client.Submission{
		Session: f.session, Agent: f.agent, Lane: f.lane, Mode: f.mode, Key: f.key, Input: input,
	}, patience)
	if err != nil {
		return err
	}
	if f.noWait && !f.asJSON {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), id)
		return err
	}
	if f.noWait {
		ctx = accepting // only the document is awaited
	} else {
		a := terminal.NewAnswer(cmd.OutOrStdout(), cmd.ErrOrStderr(), f.asJSON)
		if err := errors.Join(c.Follow(ctx, id, patience, a.Take), a.End()); err != nil {
			return kept(id, err)
		}
	}
	t, err := c.Settled(ctx, id, patience)
	if err != nil {
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
		return advice.Errorf("turn %s failed: %s", t.ID, t.Error).Tryf("gateway turns retry %s", t.ID)
	case queue.Cancelled:
		return advice.Errorf("turn %s was cancelled", t.ID).Tryf("gateway turns retry %s", t.ID)
	case queue.Queued, queue.Running, queue.Completed:
	}
	return nil
}

// kept adds to an error that ended the wait for an accepted turn how to find the turn.
func kept(id string, err error) error {
	if absent, ok := errors.AsType[*client.AbsentError](err); ok {
		return advice.Errorf("lost the gateway (%s); turn %s was accepted and continues when the gateway is back", absent.Where, id).Tryf("%s, then gateway turns show %s", absent.Try, id)
	}
	why, _ := advice.Split(err)
	return advice.Errorf("%s; turn %s was accepted and continues", why, id).Tryf("gateway turns show %s", id)
}
