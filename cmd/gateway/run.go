package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/process"
)

func newRunCommand(o *options) *cobra.Command {
	var listen, level, format string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until it is stopped",
		Long: `Run the gateway until it is stopped. Without a file it uses the defaults: loopback, state in the user's
state folder, the echo agent.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source := o.source()
			for key, value := range map[string]string{"listen": listen, "log.level": level, "log.format": format} {
				if value != "" {
					source.Flags[key] = value
				}
			}
			if predecessor, reply, asked := process.Asked(); asked {
				_, err := candidate(source, predecessor)
				return reply(version(), err)
			}
			return runDaemon(source, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on")
	cmd.Flags().StringVar(&level, "log-level", "", "trace, debug, info, warn, error")
	cmd.Flags().StringVar(&format, "log-format", "", "auto, console, json")
	return cmd
}

func runDaemon(source config.Source, stdout, stderr io.Writer) error {
	inherited, err := process.Inherit()
	if err != nil {
		return err
	}
	loaded, err := config.Load(source)
	if err != nil {
		if inherited != nil { // it was valid a moment ago: trying again may help
			return err
		}
		return &exitError{fsm.ExitConfig, err}
	}
	d, err := newDaemon(source, loaded, inherited, os.Args, stdout, newLogger(loaded.Config.Log.Format, stderr))
	if err != nil {
		return err
	}
	code := d.run()
	if code == fsm.ExitOK {
		return nil
	}
	return &exitError{code, d.failure}
}

// newLogger writes for people at a terminal and JSON elsewhere, unless the format says which. The level is
// that of the configuration in force; see use.
func newLogger(format string, w io.Writer) zerolog.Logger {
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	if format == "console" || (format == "auto" && terminal) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	}
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return zerolog.New(w).With().Timestamp().Logger()
}
