package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	sse "github.com/tmaxmax/go-sse"

	"gateway/fsm"
	"gateway/internal/process"
)

// exitNotRunning is what `status` exits with when nothing runs.
const exitNotRunning = 3

// hopDocument is a hop as the API and the journal write it.
type hopDocument = fsm.Hop

func newStatusCommand(o *options) *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the gateway is doing",
		Long:  "Show what the gateway is doing. Exits with 0 in Running, 3 when nothing runs, 1 otherwise.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if watch {
				return c.watchStatus(cmd.Context(), cmd.OutOrStdout(), asJSON)
			}
			s, err := c.snapshot(cmd.Context())
			if err != nil {
				return c.statusOfNobody(cmd.Context(), cmd.OutOrStdout(), asJSON, err)
			}
			if err := printStatus(cmd.OutOrStdout(), s, asJSON); err != nil {
				return err
			}
			if s.State != fsm.Running {
				return &exitError{code: fsm.ExitFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "print again at every change")
	return cmd
}

func printStatus(w io.Writer, s snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(w, s.statusDocument)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("state", "%s since %s", s.State, s.Since.Local().Format(time.DateTime))
	if s.Intent != "" {
		row("intent", "%s", s.Intent)
	}
	if !s.Deadline.IsZero() {
		row("deadline", "%s", s.Deadline.Local().Format(time.DateTime))
	}
	row("address", "http://%s", s.Address)
	row("pid", "%d", s.PID)
	row("boot", "%s, generation %d", s.BootID, s.Generation)
	row("state folder", "%s", s.StateDir)
	row("version", "%s", s.Version)
	row("restarts by", "%s (%s)", s.RespawnMode, s.RespawnReason)
	row("turns", "%d running, %d queued, %d stuck", s.Turns.Running, s.Turns.Queued, s.Turns.Stuck)
	if n := len(s.History); n > 0 {
		row("last hop", "%s", describeHop(s.History[n-1]))
	}
	return t.Flush()
}

func describeHop(h hopDocument) string {
	text := fmt.Sprintf("%s at %s by %s", h.To, h.Time.Local().Format(time.DateTime), h.Actor)
	if h.Event != "" {
		text = fmt.Sprintf("%s → %s (%s) at %s by %s", h.From, h.To, h.Event, h.Time.Local().Format(time.DateTime), h.Actor)
	}
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	return text
}

// statusOfNobody says what the last process was doing when none answers.
func (c *client) statusOfNobody(ctx context.Context, w io.Writer, asJSON bool, err error) error {
	var refused *apiError
	if errors.As(err, &refused) || ctx.Err() != nil || c.stateDir == "" {
		return err
	}
	var last *hopDocument
	if jerr := process.ReadJournal(c.stateDir, func(line []byte) {
		var h hopDocument
		if json.Unmarshal(line, &h) == nil && h.To != "" {
			last = &h
		}
	}); jerr != nil {
		return jerr
	}
	if asJSON {
		if err := printJSON(w, map[string]any{"state": "not running", "state_dir": c.stateDir, "last_hop": last}); err != nil {
			return err
		}
		return &exitError{code: exitNotRunning}
	}
	_, _ = fmt.Fprintf(w, "not running (state folder %s)\n", c.stateDir)
	if last != nil {
		_, _ = fmt.Fprintf(w, "last seen: %s\n", describeHop(*last))
		if last.To != fsm.Stopped {
			_, _ = fmt.Fprintf(w, "it did not stop by itself; what it had accepted is kept\n")
		}
	}
	return &exitError{exitNotRunning, errors.New("no gateway runs\nTry: gateway run")}
}

// watchStatus prints the status at every hop, and connects again when the gateway goes away.
func (c *client) watchStatus(ctx context.Context, w io.Writer, asJSON bool) error {
	for {
		resp, err := c.request(ctx, http.MethodGet, "/v1/lifecycle", nil, http.Header{"Accept": {"text/event-stream"}})
		if err == nil {
			for _, err := range sse.Read(resp.Body, nil) {
				if err != nil {
					break
				}
				s, err := c.snapshot(ctx)
				if err != nil {
					break
				}
				if err := printStatus(w, s, asJSON); err != nil {
					return err
				}
				if !asJSON {
					_, _ = fmt.Fprintln(w)
				}
			}
			_ = resp.Body.Close()
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// pause waits between two tries; false when ctx ended.
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
