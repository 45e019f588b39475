package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gateway/internal/client"
	"gateway/internal/terminal"
)

func newSessionsCommand(o *options) *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use: "sessions", Short: "List the sessions, the most recently used first", Args: cobra.NoArgs,
		Example: "  gateway sessions\n  gateway sessions mode review collect\n  gateway sessions pause review",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			doc, err := c.Sessions(cmd.Context(), limit)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), doc)
			}
			w := terminal.NewTable(cmd.OutOrStdout(), "SESSION", "TURNS", "RUNNING", "QUEUED", "USED", "MODE", "")
			for _, s := range doc.Sessions {
				w.Row(s.Name, strconv.Itoa(s.Turns), strconv.Itoa(s.Running), strconv.Itoa(s.Queued), terminal.Age(s.UpdatedAt), cmp.Or(string(s.Mode), "–"), terminal.PausedWord(s.Paused))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many, at most 1000")
	cmd.AddCommand(
		newSessionCommand(o, "pause SESSION", "Pause a session: its queued turns do not start",
			"Running turns continue. New turns are accepted and wait. The pause survives restarts.",
			1, func([]string) client.SessionChange { return client.SessionChange{Paused: new(true)} }),
		newSessionCommand(o, "resume SESSION", "Resume a session: its queued turns start again", "",
			1, func([]string) client.SessionChange { return client.SessionChange{Paused: new(false)} }),
		newSessionCommand(o, "mode SESSION MODE", "Set what a new turn does when others of the session wait or run",
			`followup waits in line. collect joins the waiting turn, so that the agent gets everything that arrived while
it was busy as one input. interrupt cancels the turns before it and runs next. agent removes the mode of the
session; the agent's configuration decides again.`,
			2, func(args []string) client.SessionChange {
				return client.SessionChange{Mode: new(strings.TrimPrefix(args[1], "agent"))}
			}))
	return cmd
}

// newSessionCommand is a command that changes a session as the arguments after its name specify.
func newSessionCommand(o *options, use, short, long string, n int, change func(args []string) client.SessionChange) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: strings.TrimSpace(short + ".\n\n" + long), Args: cobra.ExactArgs(n),
		Example: "  gateway sessions " + strings.NewReplacer("SESSION", "review", "MODE", "collect").Replace(use),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 && n == 2 {
				return []cobra.Completion{"followup", "collect", "interrupt", "agent"}, cobra.ShellCompDirectiveNoFileComp
			}
			return first(o.complete(sessionNames))(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			s, err := c.ChangeSession(cmd.Context(), args[0], change(args))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "session %s: %d running, %d queued, mode %s%s\n",
				s.Name, s.Running, s.Queued, cmp.Or(string(s.Mode), "of the agent"), comma(terminal.PausedWord(s.Paused)))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
