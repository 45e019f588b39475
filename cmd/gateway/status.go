package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/client"
	"gateway/internal/statedir"
	"gateway/internal/terminal"
)

const (
	// exitNotRunning is the exit code of `status` when no gateway runs.
	exitNotRunning = 3
	// askAgain is the time to the second request after the first answer was cut off.
	askAgain = 200 * time.Millisecond
)

func newStatusCommand(o *options) *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the gateway is doing",
		Long:  "Show what the gateway is doing. Exits with 0 in Running, 3 when no gateway runs, 1 otherwise.",
		Example: `  gateway status
  gateway status --watch
  gateway status --watch --json | jq -r .state
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
				return c.Watch(ctx, func(seen client.Sighting) error {
					for _, change := range seen.Changes {
						if err := printChange(cmd.OutOrStdout(), change, asJSON); err != nil {
							return err
						}
					}
					return nil
				})
			}
			s, err := c.Snapshot(cmd.Context())
			if client.CutOff(err) && pause(cmd.Context(), askAgain) { // the gateway restarts, or was just killed
				s, err = c.Snapshot(cmd.Context())
			}
			if nobody, ok := errors.AsType[*client.AbsentError](err); ok {
				if err := printAbsence(cmd.OutOrStdout(), c, asJSON); err != nil {
					return err
				}
				if asJSON {
					return &exitError{code: exitNotRunning}
				}
				return &exitError{exitNotRunning, advice.Errorf("no gateway is running").Try(nobody.Try)}
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
	cmd.Flags().BoolVar(&watch, "watch", false, "print a line for every change until Ctrl-C; with --json one document a line")
	return cmd
}

func printStatus(w io.Writer, s client.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(w, s.StatusDocument)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("state", "%s since %s", s.State, s.Since.Local().Format(time.DateTime))
	if s.State == fsm.Draining {
		half := "start until the successor is prepared"
		if !s.Ready {
			half = "wait for the restart; the successor is prepared"
		}
		row("queued turns", "%s", half)
	}
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

func describeHop(h fsm.Hop) string {
	text := fmt.Sprintf("%s at %s by %s", h.To, h.Time.Local().Format(time.DateTime), h.Actor)
	if h.Event != "" {
		text = fmt.Sprintf("%s → %s (%s) at %s by %s", h.From, h.To, h.Event, h.Time.Local().Format(time.DateTime), h.Actor)
		if h.From == h.To {
			text = fmt.Sprintf("%s (%s) at %s by %s", h.To, h.Event, h.Time.Local().Format(time.DateTime), h.Actor)
		}
	}
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	return text
}

// printChange prints a line of `status --watch`.
func printChange(w io.Writer, c client.StatusChange, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		if err := e.Encode(c); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		return nil
	}
	if _, err := fmt.Fprintf(w, "%s  %s\n", c.Time.Local().Format(time.DateTime), describeChange(c)); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// describeChange is the text of a change.
func describeChange(c client.StatusChange) string {
	text := fmt.Sprintf("%-12s", c.State)
	if c.Turns != nil {
		text += fmt.Sprintf("  %d running, %d queued", c.Turns.Running, c.Turns.Queued)
		if c.Turns.Stuck > 0 {
			text += fmt.Sprintf(", %d stuck", c.Turns.Stuck)
		}
	}
	if c.Event != "" {
		text += fmt.Sprintf("  (%s by %s", c.Event, terminal.FirstLine(c.Actor))
		if c.Reason != "" {
			text += ": " + terminal.FirstLine(c.Reason)
		}
		text += ")"
	}
	return strings.TrimRight(text, " ")
}

// printAbsence prints the last hop and the failed starts of a gateway that does not answer.
func printAbsence(w io.Writer, c *client.Client, asJSON bool) error {
	if c.StateDir() == "" {
		if asJSON {
			return printJSON(w, map[string]any{"state": client.NotRunning, "url": c.URL()})
		}
		_, err := fmt.Fprintf(w, "not running (%s)\n", c.URL())
		return err
	}
	var last *fsm.Hop
	seen := make(map[string]bool) // boots
	if err := statedir.ReadJournal(c.StateDir(), func(line []byte) {
		var h fsm.Hop
		if json.Unmarshal(line, &h) != nil || h.To == "" {
			return
		}
		// A predecessor may write its last hop after the first hops of its successor.
		if last == nil || h.BootID == last.BootID || !seen[h.BootID] {
			last = &h
		}
		seen[h.BootID] = true
	}); err != nil {
		return err
	}
	failed := statedir.ReadFailedStarts(c.StateDir())
	if asJSON {
		doc := map[string]any{"state": client.NotRunning, "state_dir": c.StateDir(), "last_hop": last}
		if failed.Count > 0 {
			doc["failed_starts"] = failed
		}
		return printJSON(w, doc)
	}
	if failed.Count > 0 {
		_, _ = fmt.Fprintf(w, "the last start failed: %s\n", failed.Reason)
		_, _ = fmt.Fprintf(w, "failed starts in a row: %d, the last at %s\n", failed.Count, failed.Last.Local().Format(time.DateTime))
		if statedir.Owned(c.StateDir()) && failed.Until.After(time.Now()) {
			_, _ = fmt.Fprintf(w, "the next start waits until %s\n", failed.Until.Local().Format(time.TimeOnly))
		}
	}
	_, _ = fmt.Fprintf(w, "not running (state folder %s)\n", c.StateDir())
	if last != nil {
		_, _ = fmt.Fprintf(w, "last seen: %s\n", describeHop(*last))
		if last.To != fsm.Stopped {
			_, _ = fmt.Fprintf(w, "it crashed or was killed; accepted turns are kept\n")
		}
	}
	return nil
}
