package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/client"
	"gateway/internal/statedir"
	"gateway/internal/terminal"
)

// pollEvery is the time between two requests to a gateway that restarts or stops.
const pollEvery = 20 * time.Millisecond

type lifecycleFlags struct {
	reason  string
	turn    string
	drain   string // "" for what is configured
	noWait  bool
	asJSON  bool
	timeout time.Duration
}

func (f *lifecycleFlags) add(cmd *cobra.Command, timeout time.Duration) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history and the log")
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "return once the request is accepted")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&f.timeout, "timeout", timeout, "how long to wait")
}

func (f *lifecycleFlags) change() client.Change {
	return client.Change{Reason: f.reason, Turn: f.turn, Drain: f.drain}
}

func newRestartCommand(o *options) *cobra.Command {
	f := &lifecycleFlags{}
	var authorize, explain, force, wait bool
	var drain time.Duration
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Restart the gateway without loss; running turns may finish",
		Long: `Restart the gateway. Running turns may finish, up to lifecycle.drain_timeout. New turns are accepted and wait.
When the successor cannot take over, the restart is called off and this command prints why. --drain-timeout changes how
long the restart waits for running turns, and --force does not wait. Turns that still run then are interrupted and run
again after the restart. Both flags also change a restart that is already draining.`,
		Example: `  gateway restart --reason "new version"
  gateway restart --explain
  gateway restart --drain-timeout 5m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if explain {
				return explainRestart(cmd, c, f.asJSON)
			}
			if authorize {
				if err := c.AuthorizeSignal(cmd.Context()); err != nil {
					return err
				}
				return report(cmd, f.asJSON, map[string]bool{"authorized": true}, "one restart by SIGUSR1 is authorised for 5 s")
			}
			if force {
				f.drain = "0s"
			}
			if cmd.Flags().Changed("drain-timeout") {
				f.drain = drain.String()
			}
			f.noWait = f.noWait || !wait
			f.timeout += drain
			return restart(cmd, c, f)
		},
	}
	f.add(cmd, 2*time.Minute)
	cmd.Flags().StringVar(&f.turn, "turn", os.Getenv("GATEWAY_TURN_ID"), "the turn that asks for the restart; the drain does not wait for it")
	cmd.Flags().DurationVar(&drain, "drain-timeout", 0, "how long to wait for running turns, instead of lifecycle.drain_timeout")
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for running turns: --drain-timeout 0s")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the restart has ended, and print the result")
	cmd.MarkFlagsMutuallyExclusive("drain-timeout", "force")
	cmd.MarkFlagsMutuallyExclusive("wait", "no-wait")
	cmd.Flags().BoolVar(&explain, "explain", false, "print what a restart would wait for, and whether the successor could take over; do not restart")
	cmd.Flags().BoolVar(&authorize, "authorize-signal", false, "authorise one restart by SIGUSR1 within 5 s; do not restart")
	return cmd
}

func restart(cmd *cobra.Command, c *client.Client, f *lifecycleFlags) error {
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), f.timeout, advice.Errorf("the restart has not ended within %s", f.timeout).Try("gateway status"))
	defer cancel()
	before, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	d, err := c.Request(ctx, fsm.Restart, f.change())
	if err != nil {
		return err
	}
	if d.Outcome == fsm.VerdictIgnored {
		return advice.Errorf("the restart was refused while %s: %s", d.State, d.Message).Try("gateway status")
	}
	if f.noWait {
		return report(cmd, f.asJSON, d, "%s: %s", d.Outcome, d.Message)
	}
	p := terminal.NewProgress(cmd.ErrOrStderr())
	defer p.End()
	report := func(cmd *cobra.Command, asJSON bool, doc any, format string, args ...any) error {
		p.End()
		return report(cmd, asJSON, doc, format, args...)
	}
	for {
		s, err := c.Snapshot(ctx)
		p.Show(restartProgress(s, err, time.Now()))
		var refused *client.APIError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused) && refused.Code == client.NoToken: // the predecessor needed no token, or accepted this one
			return fmt.Errorf("the restart has begun, but its result is unknown: %w", err)
		case errors.As(err, &refused) && !refused.Passing():
			return err
		case err != nil && before.RespawnMode == fsm.ModeSupervisor && os.Getenv("MAINPID") != "":
			// This command is systemd's ExecReload: systemd starts the successor after the command has ended.
			return report(cmd, f.asJSON, map[string]any{"outcome": "left to the supervisor"}, "left to the supervisor")
		case err != nil: // the gateway is restarting
		case s.State == fsm.Running && (s.BootID != before.BootID || s.Generation > before.Generation):
			if why, fell := since(s, before.Hop, fsm.RespawnFailed); fell && s.BootID == before.BootID {
				return advice.Errorf("the gateway restarted in place, with the same program and configuration: the successor could not take over: %s", why).Try("fix that, then gateway restart")
			}
			took := time.Since(began).Round(time.Millisecond)
			return report(cmd, f.asJSON, map[string]any{"outcome": "restarted", "took_ms": took.Milliseconds(), "status": s.StatusDocument},
				"restarted in %s: pid %d, boot %s, generation %d (%s)", took, s.PID, s.BootID, s.Generation, s.RespawnMode)
		case s.State == fsm.Running:
			if why, off := since(s, before.Hop, fsm.Resume); off {
				return advice.Errorf("the restart was called off, and the gateway continues unchanged: %s", why).Try("fix that, then gateway restart")
			}
		case s.Intent == fsm.IntentStop:
			return advice.Errorf("the gateway is stopping: a stop outranks a restart").Try("gateway run")
		}
		if !pause(ctx, pollEvery) {
			return context.Cause(ctx)
		}
	}
}

// since finds an event after a hop, and its reason.
func since(s client.Snapshot, hop uint64, event fsm.Event) (why string, found bool) {
	for _, h := range s.History {
		if h.Seq > hop && h.Event == event {
			return h.Reason, true
		}
	}
	return "", false
}

// explainRestart prints what a restart would do and which turns it would wait for. A restart that would be called off is
// an error.
func explainRestart(cmd *cobra.Command, c *client.Client, asJSON bool) error {
	s, err := c.Snapshot(cmd.Context())
	if err != nil {
		return err
	}
	running, err := c.RunningTurns(cmd.Context())
	if err != nil {
		return err
	}
	next, unknown, err := c.CheckSuccessor(cmd.Context())
	if err != nil {
		return err
	}
	if unknown == "" && !next.Ready {
		err = advice.Errorf("a restart would be called off: %s", next.Reason).Try("fix that, then gateway restart")
	}
	if asJSON {
		doc := map[string]any{
			"respawn_mode": s.RespawnMode, "respawn_reason": s.RespawnReason, "queued": s.Turns.Queued, "waits_for": running,
		}
		if unknown == "" {
			doc["successor"] = next
		}
		return errors.Join(printJSON(cmd.OutOrStdout(), doc), err)
	}
	_, _ = fmt.Fprintf(cmd.OutOrStdout(), "respawn mode: %s (%s)\n", s.RespawnMode, s.RespawnReason)
	if unknown != "" {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "gateway: it is unknown whether the successor could take over: %s\n", unknown)
	}
	if next.Ready {
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "version %s can take over\n", next.Version)
	}
	for _, w := range next.Warnings {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "gateway: warning: %s\n", w)
	}
	_, _ = fmt.Fprintf(cmd.OutOrStdout(), "a restart would wait for %d running turns, at most lifecycle.drain_timeout; %d queued turns run after it\n", len(running), s.Turns.Queued)
	if len(running) == 0 {
		return err
	}
	w := terminal.NewTable(cmd.OutOrStdout(), "TURN", "SESSION", "AGENT", "RUNS FOR", "INPUT")
	for _, t := range running {
		w.Row(t.ID, t.Session, t.Agent, terminal.Age(*t.StartedAt), terminal.FirstLine(t.Input))
	}
	return errors.Join(w.Flush(), err)
}

func newStopCommand(o *options) *cobra.Command {
	f := &lifecycleFlags{}
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the gateway; accepted turns are kept",
		Long: `Stop the gateway. Running turns are interrupted and run again at the next start. This command returns when
the state folder is free.`,
		Example: `  gateway stop --reason maintenance`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), f.timeout, advice.Errorf("the gateway has not stopped within %s", f.timeout).Try("gateway status"))
			defer cancel()
			began := time.Now()
			d, err := c.Request(ctx, fsm.Stop, f.change())
			if err != nil {
				return err
			}
			if f.noWait {
				return report(cmd, f.asJSON, d, "%s: %s", d.Outcome, d.Message)
			}
			for {
				var nobody *client.AbsentError
				if errors.As(c.Alive(ctx), &nobody) && (c.StateDir() == "" || !statedir.Owned(c.StateDir())) {
					took := time.Since(began).Round(time.Millisecond)
					return report(cmd, f.asJSON, map[string]any{"outcome": "stopped", "took_ms": took.Milliseconds()}, "stopped in %s", took)
				}
				if !pause(ctx, pollEvery) {
					return context.Cause(ctx)
				}
			}
		},
	}
	f.add(cmd, time.Minute)
	return cmd
}

func newResumeCommand(o *options) *cobra.Command {
	f := &lifecycleFlags{}
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Call off a restart that is still draining",
		Long: `Call off a restart that is still draining: the gateway continues unchanged and starts turns again. Exits with 1
when there is nothing to call off.`,
		Example: `  gateway resume --reason "not now"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			d, err := c.Request(cmd.Context(), fsm.Resume, f.change())
			if err != nil {
				return err
			}
			if d.Outcome != fsm.VerdictAccepted {
				return advice.Errorf("nothing to call off: %s", d.Message).Try("gateway status")
			}
			return report(cmd, f.asJSON, d, "%s", d.Message)
		},
	}
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history and the log")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

// restartProgress returns what a restart waits for, given the latest answer of the gateway.
func restartProgress(s client.Snapshot, err error, now time.Time) string {
	switch {
	case err != nil:
		return "restarting: the successor is starting"
	case s.State != fsm.Draining:
		return "restarting: " + string(s.State)
	case s.Turns.Running == 0, s.Ready:
		return "restarting: Draining, waiting for the successor"
	}
	text := fmt.Sprintf("restarting: Draining, waiting for %d running turns", s.Turns.Running)
	if s.Turns.Running == 1 {
		text = "restarting: Draining, waiting for 1 running turn"
	}
	if left := s.Deadline.Sub(now).Round(time.Second); !s.Deadline.IsZero() && left > 0 {
		text += fmt.Sprintf(", at most %s more", left)
	}
	return text
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
