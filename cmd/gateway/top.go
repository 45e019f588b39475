package main

import (
	"github.com/spf13/cobra"

	"gateway/internal/terminal"
)

func newTopCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "Watch lanes and turns live; pause lanes and cancel turns",
		Long: `Watch the state, the lanes, the turns that run and the latest ones. It goes on through restarts, and shows the
states as they pass.

The arrow keys, or j and k, choose a line; p pauses or resumes the lane, c cancels the turn after a question, / shows
only lanes and turns in which a text occurs, q leaves.`,
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
