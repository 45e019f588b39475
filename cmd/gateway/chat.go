package main

import (
	"github.com/spf13/cobra"

	"gateway/internal/advice"
	"gateway/internal/terminal"
)

func newChatCommand(o *options) *cobra.Command {
	var session, agent string
	cmd := &cobra.Command{
		Use:   "chat",
		Short: "Talk to an agent in a terminal",
		Long: `Talk to an agent in a terminal. The session is kept, so the conversation can be continued later. An answer
continues after a restart of the gateway.

Enter sends. Alt+Enter or Ctrl+J begins a new line. The up and down keys show earlier inputs. Esc cancels the running
turn. PgUp and PgDn scroll. Ctrl+C, or Ctrl+D on an empty input, leaves the chat; turns that were sent continue.`,
		Example: "  gateway chat\n  gateway chat --session review --agent claude",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if session == "" {
				return usageError(advice.Errorf("--session is empty").Try("--session NAME, or without it for the session main"))
			}
			if err := needTerminal(cmd.InOrStdin(), cmd.OutOrStdout(), "chat", "gateway send --session NAME -, which reads standard input"); err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return terminal.Chat(ctx, c, session, agent, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&session, "session", "s", "main", "the session; its turns run one at a time, in order")
	cmd.Flags().StringVarP(&agent, "agent", "a", "", "the agent; default_agent when empty")
	o.completeSending(cmd)
	return cmd
}
