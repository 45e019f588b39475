package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gateway/fsm"
)

func newStatesCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "states",
		Short: "Show the lifecycle: every state, event and transition",
		Long:  "Show the table that the daemon runs. It needs no daemon.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := fsm.Lifecycle().Render(format)
			if err != nil {
				return usageError(err)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), s)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", strings.Join(fsm.Formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(fsm.Formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
