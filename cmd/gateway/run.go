package main

import (
	"errors"
	"io"
	"os"
	"runtime/debug"
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
state folder, the echo agent.

SIGTERM and SIGINT stop it, SIGHUP restarts it without loss. Exits with 0 when it stopped cleanly or handed over, 1 when
it could not start, 2 when a deadline passed, 3 when the server failed, 64 for wrong usage, and 78 when it will not
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
			predecessor, err := process.Asked()
			if err != nil {
				return err
			}
			if predecessor != nil {
				return runSuccessor(source, predecessor, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return runDaemon(source, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on")
	cmd.Flags().StringVar(&level, "log-level", "", "trace, debug, info, warn, error")
	cmd.Flags().StringVar(&format, "log-format", "", "auto, console, json")
	completeFlag(cmd, "log-level", choices("trace", "debug", "info", "warn", "error"))
	completeFlag(cmd, "log-format", choices("auto", "console", "json"))
	return cmd
}

func runDaemon(source config.Source, stdout, stderr io.Writer) error {
	collectLater()
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
	return d.exit()
}

// While a gateway starts, and requests wait for it, garbage may be left until the heap has 16 MB instead of 4. A start
// that takes longer than usual has much to load, and collects as it goes.
const (
	startingGOGC = 400
	startedAfter = 100 * time.Millisecond
)

// collectLater lets a start do without the garbage collector, unless GOGC says when that is to work.
func collectLater() {
	if os.Getenv("GOGC") == "" {
		usual := debug.SetGCPercent(startingGOGC)
		time.AfterFunc(startedAfter, func() { debug.SetGCPercent(usual) })
	}
}

// runSuccessor says whether this process could take over from the gateway that asks, and does so when it is
// told to. What was checked is what runs.
func runSuccessor(source config.Source, predecessor *process.Predecessor, stdout, stderr io.Writer) error {
	defer predecessor.Close()
	loaded, err := candidate(source, predecessor.Question)
	var warned []string
	if err == nil && predecessor.Warn {
		warned = warnings(loaded)
	}
	if err := predecessor.Answer(version(), warned, err); err != nil {
		return err
	}
	inherited, err := predecessor.AwaitGo()
	if errors.Is(err, process.ErrDismissed) {
		return nil
	}
	if err != nil {
		predecessor.Failed(err.Error())
		return err
	}
	collectLater()
	d, err := newDaemon(source, loaded, inherited, os.Args, stdout, newLogger(loaded.Config.Log.Format, stderr))
	if err != nil {
		predecessor.Failed(err.Error())
		return err
	}
	d.predecessor = predecessor
	return d.exit()
}

// exit runs the daemon and turns its exit code into an error.
func (d *daemon) exit() error {
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
