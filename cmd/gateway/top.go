package main

import (
	"github.com/spf13/cobra"

	"gateway/internal/terminal"
)

func newTopCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "Watch lanes and turns live; pause lanes and cancel turns",
		Long: `Watch the state, the lanes, the running turns and the latest turns. The display continues through restarts and
shows each state.

The arrow keys, or j and k, select a line. p pauses or resumes the lane. c cancels the turn, after a confirmation. /
filters lanes and turns by a text. q quits.`,
		Example: "  gateway top\n  gateway top --url https://host:18789",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needTerminal(cmd.InOrStdin(), cmd.OutOrStdout(), "top", "gateway status --watch, or gateway lanes --json"); err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return terminal.Top(ctx, c, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
