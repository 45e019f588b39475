package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gateway/internal/terminal"
)

func newLanesCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "lanes", Short: "List the lanes and their turns", Args: cobra.NoArgs,
		Long: `List the lanes: how many sessions each lane runs at once, how many turns run and wait, how many abandoned attempts
have not ended (STUCK), and how long the oldest queued turn has waited.`,
		Example: "  gateway lanes\n  gateway lanes --json | jq '.lanes[] | select(.queued > 0)'\n  gateway lanes pause cron",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			doc, err := c.Lanes(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), doc)
			}
			w := terminal.NewTable(cmd.OutOrStdout(), "LANE", "CONCURRENCY", "RUNNING", "QUEUED", "STUCK", "OLDEST", "")
			for _, l := range doc.Lanes {
				oldest := "–"
				if l.OldestQueuedAt != nil {
					oldest = terminal.Age(*l.OldestQueuedAt)
				}
				w.Row(l.Name, strconv.Itoa(l.Concurrency), strconv.Itoa(l.Running), strconv.Itoa(l.Queued), strconv.Itoa(l.Stuck), oldest, terminal.PausedWord(l.Paused))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(newLaneCommand(o, "pause", "Pause a lane: its queued turns do not start",
		"Running turns continue. New turns are accepted and wait. The pause survives restarts.", true),
		newLaneCommand(o, "resume", "Resume a lane: its queued turns start again", "", false))
	return cmd
}

func newLaneCommand(o *options, use, short, long string, paused bool) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use + " LANE", Short: short, Args: cobra.ExactArgs(1),
		Long:              strings.TrimSpace(short + ". " + long),
		Example:           "  gateway lanes " + use + " cron",
		ValidArgsFunction: first(o.complete(laneNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			l, err := c.PauseLane(cmd.Context(), args[0], paused)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), l)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "lane %s: %d running, %d queued%s\n", l.Name, l.Running, l.Queued, comma(terminal.PausedWord(l.Paused)))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// comma prefixes a word with a comma; empty for an empty word.
func comma(word string) string {
	if word == "" {
		return ""
	}
	return ", " + word
}
