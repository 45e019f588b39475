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

const (
	// exitNotRunning is what `status` exits with when nothing runs.
	exitNotRunning = 3
	// watchAgain is how long `status` waits before it looks again for a gateway that went away.
	watchAgain = 200 * time.Millisecond
)

// hopDocument is a hop as the API and the journal write it.
type hopDocument = fsm.Hop

func newStatusCommand(o *options) *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the gateway is doing",
		Long:  "Show what the gateway is doing. Exits with 0 in Running, 3 when nothing runs, 1 otherwise.",
		Example: `  gateway status
  gateway status --watch
  gateway status --json | jq -r .address`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if watch {
				ctx, stop := interruptible(cmd)
				defer stop()
				return c.watchStatus(ctx, cmd.OutOrStdout(), asJSON)
			}
			s, err := c.snapshot(cmd.Context())
			if cutOff(err) && pause(cmd.Context(), watchAgain) { // it restarts, or was killed this instant
				s, err = c.snapshot(cmd.Context())
			}
			if nobody, ok := errors.AsType[*absentError](err); ok {
				if err := c.printAbsence(cmd.OutOrStdout(), asJSON); err != nil {
					return err
				}
				if asJSON {
					return &exitError{code: exitNotRunning}
				}
				return &exitError{exitNotRunning, fmt.Errorf("no gateway runs\nTry: %s", nobody.try)}
			}
			if err != nil {
				return err
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
	scheme := "http"
	if s.TLS {
		scheme = "https"
	}
	row("address", "%s://%s", scheme, s.Address)
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

// printAbsence says what the last process was doing when none answers.
func (c *client) printAbsence(w io.Writer, asJSON bool) error {
	if c.stateDir == "" {
		if asJSON {
			return printJSON(w, map[string]any{"state": "not running", "url": c.base})
		}
		_, err := fmt.Fprintf(w, "not running (%s)\n", c.base)
		return err
	}
	var last *hopDocument
	seen := make(map[string]bool) // boots
	if err := process.ReadJournal(c.stateDir, func(line []byte) {
		var h hopDocument
		if json.Unmarshal(line, &h) != nil || h.To == "" {
			return
		}
		// A predecessor writes its last hop beside the first ones of its successor.
		if last == nil || h.BootID == last.BootID || !seen[h.BootID] {
			last = &h
		}
		seen[h.BootID] = true
	}); err != nil {
		return err
	}
	failed := process.ReadFailedStarts(c.stateDir)
	if asJSON {
		doc := map[string]any{"state": "not running", "state_dir": c.stateDir, "last_hop": last}
		if failed.Count > 0 {
			doc["failed_starts"] = failed
		}
		return printJSON(w, doc)
	}
	if failed.Count > 0 {
		_, _ = fmt.Fprintf(w, "the last start has failed: %s\n", failed.Reason)
		_, _ = fmt.Fprintf(w, "failed starts, one after another: %d, the last at %s\n", failed.Count, failed.Last.Local().Format(time.DateTime))
		if process.Owned(c.stateDir) && failed.Until.After(time.Now()) {
			_, _ = fmt.Fprintf(w, "the next one waits until %s\n", failed.Until.Local().Format(time.TimeOnly))
		}
	}
	_, _ = fmt.Fprintf(w, "not running (state folder %s)\n", c.stateDir)
	if last != nil {
		_, _ = fmt.Fprintf(w, "last seen: %s\n", describeHop(*last))
		if last.To != fsm.Stopped {
			_, _ = fmt.Fprintf(w, "it did not stop by itself; what it had accepted is kept\n")
		}
	}
	return nil
}

// watchStatus prints the status, and again after every hop, until ctx ends. It waits for a gateway that
// goes away.
func (c *client) watchStatus(ctx context.Context, w io.Writer, asJSON bool) error {
	const absent = "absent"
	var shown string
	for {
		s, err := c.snapshot(ctx)
		var refused *apiError
		var nobody *absentError
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if now := fmt.Sprint(s.BootID, " ", s.Hop); now != shown {
				if err := errors.Join(printStatus(w, s, asJSON), gap(w, asJSON)); err != nil {
					return err
				}
				shown = now
			}
			if c.awaitChange(ctx, s) {
				continue
			}
		case errors.As(err, &nobody):
			if shown != absent {
				if err := errors.Join(c.printAbsence(w, asJSON), gap(w, asJSON)); err != nil {
					return err
				}
				shown = absent
			}
		case errors.As(err, &refused) && !refused.passing():
			return err
		}
		if !pause(ctx, watchAgain) {
			return nil
		}
	}
}

// gap sets one status apart from the next, for people.
func gap(w io.Writer, asJSON bool) error {
	if asJSON {
		return nil
	}
	_, err := fmt.Fprintln(w)
	return err
}

// awaitChange waits until the gateway is no longer as s says; false when the stream ended before.
func (c *client) awaitChange(ctx context.Context, s snapshot) bool {
	resp, err := c.request(ctx, http.MethodGet, fmt.Sprintf("/v1/lifecycle?after=%d", s.Hop), nil, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	for e, err := range sse.Read(resp.Body, nil) {
		if err != nil {
			return false
		}
		switch e.Type {
		case "hop":
			return true
		case "status": // the first: it may be another process already, whose hops begin anew
			var now statusDocument
			if json.Unmarshal([]byte(e.Data), &now) == nil && (now.BootID != s.BootID || now.Hop != s.Hop) {
				return true
			}
		}
	}
	return false
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
