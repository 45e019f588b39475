package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gateway/internal/client"
	"gateway/internal/terminal"
	"gateway/queue"
)

func newTurnsCommand(o *options) *cobra.Command {
	list := newTurnsListCommand(o)
	cmd := &cobra.Command{
		Use: "turns", Short: "List, show, cancel, retry or delete turns", Args: list.Args, RunE: list.RunE,
		Long:    "List turns, newest first, or show, cancel, retry or delete one.",
		Example: list.Example,
	}
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, newTurnCommand(o, "show", "Show one turn", plainly((*client.Client).Turn), ""),
		newTurnCommand(o, "cancel", "Cancel a queued or running turn", cancelTurn, "queued,running"),
		newTurnCommand(o, "retry", "Put a failed or cancelled turn back at the head of its session", plainly((*client.Client).RetryTurn), "failed,cancelled"),
		newTurnCommand(o, "delete", "Delete a turn that has ended, with its events and its idempotency key", plainly((*client.Client).DeleteTurn), "completed,failed,cancelled"))
	return cmd
}

func newTurnsListCommand(o *options) *cobra.Command {
	var asJSON bool
	var limit int
	filter := make(map[string]*string)
	cmd := &cobra.Command{
		Use: "list", Short: "List turns, newest first", Args: cobra.NoArgs,
		Example: `  gateway turns --status queued,running
  gateway turns --session review --limit 100
  gateway turns --json | jq -r '.turns[] | select(.status == "failed") | .id' | xargs -n 1 gateway turns retry`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, value := range filter {
				if *value != "" {
					q.Set(name, *value)
				}
			}
			doc, err := c.Turns(cmd.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), doc)
			}
			w := terminal.NewTable(cmd.OutOrStdout(), "ID", "SESSION", "AGENT", "STATUS", "ATTEMPT", "AGE", "INPUT")
			for _, t := range doc.Turns {
				w.Row(t.ID, t.Session, t.Agent, string(t.Status), strconv.Itoa(t.Attempt), terminal.Age(t.CreatedAt), terminal.FirstLine(t.Input))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if doc.HasMore {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "more turns: --limit, or --before %s\n", doc.Turns[len(doc.Turns)-1].ID)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many, at most 1000")
	for name, help := range map[string]string{
		"session": "only of this session", "lane": "only of this lane", "agent": "only of this agent",
		"status": "only with one of these statuses, separated by commas: queued, running, completed, failed, cancelled", "before": "only older than the turn with this id",
	} {
		filter[name] = cmd.Flags().String(name, "", help)
	}
	o.completeTurns(cmd)
	return cmd
}

// completeTurns sets the completion of the filters.
func (o *options) completeTurns(cmd *cobra.Command) {
	completeFlag(cmd, "session", o.complete(sessionNames))
	completeFlag(cmd, "lane", o.complete(laneNames))
	completeFlag(cmd, "agent", o.complete(agentNames))
	completeFlag(cmd, "before", o.complete(turnIDs("")))
	completeFlag(cmd, "status", choices("queued", "running", "completed", "failed", "cancelled"))
}

// turnAction acts on a turn and returns the turn afterwards. The note is for people; empty for none.
type turnAction func(ctx context.Context, c *client.Client, id string) (t queue.Turn, note string, err error)

// plainly is an action without a note.
func plainly(act func(*client.Client, context.Context, string) (queue.Turn, error)) turnAction {
	return func(ctx context.Context, c *client.Client, id string) (t queue.Turn, note string, err error) {
		t, err = act(c, ctx, id)
		return t, "", err
	}
}

// cancelTurn reads the turn first: the gateway's answer is the same for a turn that was already cancelled.
func cancelTurn(ctx context.Context, c *client.Client, id string) (t queue.Turn, note string, err error) {
	before, err := c.Turn(ctx, id)
	if err != nil {
		return before, "", err
	}
	if before.Status == queue.Cancelled && before.FinishedAt != nil {
		note = fmt.Sprintf("turn %s was already cancelled, at %s", before.ID, before.FinishedAt.Local().Format(time.DateTime))
	}
	t, err = c.CancelTurn(ctx, id)
	return t, note, err
}

// newTurnCommand is a command that acts on one turn. It completes the ids of turns with one of the statuses.
func newTurnCommand(o *options, use, short string, act turnAction, statuses string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use + " ID", Short: short, Args: cobra.ExactArgs(1),
		Example:           "  gateway turns " + use + " d9s4q2mkp7c1v0f8b3ag",
		ValidArgsFunction: first(o.complete(turnIDs(statuses))),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			t, note, err := act(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if note != "" {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "gateway: "+note)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), t)
			}
			return printTurn(cmd.OutOrStdout(), t)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printTurn(out io.Writer, t queue.Turn) error {
	w := terminal.NewTable(out)
	w.Row("id", t.ID)
	w.Row("session", t.Session)
	w.Row("lane", t.Lane)
	w.Row("agent", t.Agent)
	w.Row("status", fmt.Sprintf("%s, attempt %d", t.Status, t.Attempt))
	w.Row("runs", strconv.Itoa(t.Runs))
	w.Row("created", t.CreatedAt.Local().Format(time.DateTime))
	if t.StartedAt != nil {
		w.Row("started", t.StartedAt.Local().Format(time.DateTime))
	}
	if t.FinishedAt != nil {
		w.Row("finished", t.FinishedAt.Local().Format(time.DateTime))
	}
	if t.Error != "" {
		w.Row("error", t.Error)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\ninput:\n%s\n", t.Input)
	if err == nil && t.Output != "" {
		_, err = fmt.Fprintf(out, "\noutput:\n%s\n", t.Output)
	}
	return err
}
