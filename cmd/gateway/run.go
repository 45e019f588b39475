package main

import (
	"os"

	"github.com/spf13/cobra"

	"gateway/fsm"
	"gateway/internal/daemon"
)

func newRunCommand(o *options) *cobra.Command {
	var listen, level, format string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until it is stopped",
		Long: `Run the gateway until it is stopped. Without a configuration file it uses the defaults: loopback, the user's
state folder, the echo agent.

SIGTERM and SIGINT stop the gateway. SIGHUP restarts it without loss. Exits with 0 after a clean stop or a hand-over, 1
when it could not start, 2 when a deadline passed, 3 when the server failed, 64 for wrong usage, and 78 when it cannot
start until a person acts.`,
		Example: `  gateway run
  gateway run --config gateway.yaml --listen 127.0.0.1:0
  GATEWAY_AUTH_TOKEN=$(openssl rand -hex 32) gateway run --listen 0.0.0.0:18789`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source := o.source()
			for key, value := range map[string]string{"listen": listen, "log.level": level, "log.format": format} {
				if value != "" {
					source.Flags[key] = value
				}
			}
			code, err := daemon.Main(daemon.Options{
				Source: source, Argv: os.Args, Version: version(), Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr(),
			})
			if code == fsm.ExitOK {
				return nil
			}
			return &exitError{code, err}
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on")
	cmd.Flags().StringVar(&level, "log-level", "", "trace, debug, info, warn, error")
	cmd.Flags().StringVar(&format, "log-format", "", "auto, console, json")
	completeFlag(cmd, "log-level", choices("trace", "debug", "info", "warn", "error"))
	completeFlag(cmd, "log-format", choices("auto", "console", "json"))
	return cmd
}
