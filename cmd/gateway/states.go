package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/config"
	"gateway/internal/statedir"
	"gateway/internal/terminal"
)

func newStatesCommand(o *options) *cobra.Command {
	var format string
	var history bool
	cmd := &cobra.Command{
		Use:   "states",
		Short: "Show the lifecycle: every state, event and transition",
		Long:  "Show the table that the daemon runs, or with --history the hops of the lifecycle. Neither needs a running gateway.",
		Example: `  gateway states
  gateway states --history
  gateway states --format dot | dot -Tsvg > states.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if history {
				dir, err := config.StateDir(o.source())
				if err != nil {
					return &exitError{fsm.ExitConfig, err}
				}
				return printHistory(cmd.OutOrStdout(), dir, format == "json")
			}
			s, err := fsm.Lifecycle().Render(format)
			if err != nil {
				return usageError(advice.Default(err, "gateway states --format "+fsm.Formats[0]))
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), s)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", strings.Join(fsm.Formats, ", "))
	cmd.Flags().BoolVar(&history, "history", false, "show the hops in the journal, oldest first; --format table or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(fsm.Formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printHistory prints the journal: a table for people, one JSON document a line for programs.
func printHistory(out io.Writer, dir string, asJSON bool) error {
	w := terminal.NewTable(out, "HOP", "TIME", "BOOT", "FROM", "EVENT", "TO", "ACTOR", "LASTED", "REASON")
	if asJSON {
		w = terminal.NewTable(io.Discard)
	}
	err := statedir.ReadJournal(dir, func(line []byte) {
		var h fsm.Hop
		if json.Unmarshal(line, &h) != nil || h.To == "" {
			return
		}
		if asJSON {
			_, _ = fmt.Fprintf(out, "%s\n", line)
			return
		}
		lasted := time.Duration(h.LastedMS * float64(time.Millisecond)).Round(time.Millisecond)
		w.Row(fmt.Sprint(h.Seq), h.Time.Local().Format(time.DateTime), h.BootID, string(h.From), string(h.Event), string(h.To),
			h.Actor, lasted.String(), terminal.FirstLine(h.Reason))
	})
	if err != nil {
		return err
	}
	return w.Flush()
}
