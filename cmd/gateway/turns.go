package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"gateway/queue"
)

func newTurnsCommand(o *options) *cobra.Command {
	list := newTurnsListCommand(o)
	cmd := &cobra.Command{
		Use: "turns", Short: "List, show, cancel, retry or delete turns", Args: list.Args, RunE: list.RunE,
		Long:    "List turns, newest first, or with a word behind it: show, cancel, retry or delete one.",
		Example: list.Example,
	}
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, newTurnCommand(o, "show", "Show one turn", http.MethodGet, "", ""),
		newTurnCommand(o, "cancel", "End a turn that waits or runs", http.MethodPost, "/cancel", "queued,running"),
		newTurnCommand(o, "retry", "Put a failed or cancelled turn back at the head of its session", http.MethodPost, "/retry", "failed,cancelled"),
		newTurnCommand(o, "delete", "Forget a turn that has ended, with its events and its idempotency key", http.MethodDelete, "", "completed,failed,cancelled"))
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
			var doc struct {
				Turns   []queue.Turn `json:"turns"`
				HasMore bool         `json:"has_more"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/turns?"+q.Encode(), nil, &doc, nil); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), doc)
			}
			w := table(cmd.OutOrStdout(), "ID", "SESSION", "AGENT", "STATUS", "ATTEMPT", "AGE", "INPUT")
			for _, t := range doc.Turns {
				w.row(t.ID, t.Session, t.Agent, string(t.Status), strconv.Itoa(t.Attempt), age(t.CreatedAt), firstLine(t.Input))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if doc.HasMore {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "there are more; --limit or --before %s\n", doc.Turns[len(doc.Turns)-1].ID)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many, at most 1000")
	for name, help := range map[string]string{
		"session": "only of this session", "lane": "only of this lane", "agent": "only of this agent",
		"status": "only with one of these, joined by commas: queued, running, completed, failed, cancelled", "before": "only older than the turn with this id",
	} {
		filter[name] = cmd.Flags().String(name, "", help)
	}
	o.completeTurns(cmd)
	return cmd
}

// completeTurns sets what the filters are completed with.
func (o *options) completeTurns(cmd *cobra.Command) {
	completeFlag(cmd, "session", o.complete(sessionNames))
	completeFlag(cmd, "lane", o.complete(laneNames))
	completeFlag(cmd, "agent", o.complete(agentNames))
	completeFlag(cmd, "before", o.complete(turnIDs("")))
	completeFlag(cmd, "status", choices("queued", "running", "completed", "failed", "cancelled"))
}

// newTurnCommand acts on one turn; it offers those that have one of the statuses.
func newTurnCommand(o *options, use, short, method, action, statuses string) *cobra.Command {
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
			path := "/v1/turns/" + url.PathEscape(args[0])
			var before, t queue.Turn
			if action == "/cancel" { // which answers the same when there was nothing to cancel any more
				if err := c.call(cmd.Context(), http.MethodGet, path, nil, &before, nil); err != nil {
					return err
				}
			}
			if err := c.call(cmd.Context(), method, path+action, nil, &t, nil); err != nil {
				return err
			}
			if before.Status == queue.Cancelled && before.FinishedAt != nil {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "gateway: turn %s was cancelled already, at %s\n", t.ID, before.FinishedAt.Local().Format(time.DateTime))
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
	w := table(out)
	w.row("id", t.ID)
	w.row("session", t.Session)
	w.row("lane", t.Lane)
	w.row("agent", t.Agent)
	w.row("status", fmt.Sprintf("%s, attempt %d", t.Status, t.Attempt))
	w.row("runs", strconv.Itoa(t.Runs))
	w.row("created", t.CreatedAt.Local().Format(time.DateTime))
	if t.StartedAt != nil {
		w.row("started", t.StartedAt.Local().Format(time.DateTime))
	}
	if t.FinishedAt != nil {
		w.row("finished", t.FinishedAt.Local().Format(time.DateTime))
	}
	if t.Error != "" {
		w.row("error", t.Error)
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

// rows aligns columns.
type rows struct{ *tabwriter.Writer }

func table(w io.Writer, head ...string) rows {
	t := rows{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t rows) row(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) }

func age(t time.Time) string {
	d := max(0, time.Since(t)) // a clock may have been set back
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// firstLine is enough of an input to recognise it. It leaves nothing in that moves a cursor or a column.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if r := []rune(s); len(r) > 50 {
		return string(r[:49]) + "…"
	}
	return s
}
