package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/client"
	"gateway/internal/config"
	"gateway/internal/terminal"
)

// options are the flags that all commands share.
type options struct {
	configFile string
	stateDir   string
	url        string
	token      string
}

// source is where the configuration is read from, given the flags.
func (o *options) source() config.Source {
	s := config.Source{File: o.configFile, Flags: make(map[string]string)}
	if o.stateDir != "" {
		s.Flags["state_dir"] = o.stateDir
	}
	return s
}

// connect returns a client of the gateway that the flags and the environment name. It does not contact it yet.
func (o *options) connect() (*client.Client, error) {
	if base := cmp.Or(o.url, os.Getenv("GATEWAY_URL")); base != "" {
		c, err := client.At(base, cmp.Or(o.token, os.Getenv("GATEWAY_TOKEN"), os.Getenv("GATEWAY_AUTH_TOKEN")))
		if err != nil {
			return nil, usageError(err)
		}
		return c, nil
	}
	dir, err := config.StateDir(o.source())
	if err != nil {
		return nil, &exitError{fsm.ExitConfig, err}
	}
	return client.In(dir), nil
}

func newRootCommand(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "gateway",
		Short: "A daemon in front of AI agents that loses nothing it accepted",
		Long: `A daemon in front of AI agents. Clients send it turns over HTTP or with these commands. The gateway writes each
turn to disk before it acknowledges the turn, runs the turn in its lane, streams the answer and keeps it. Nothing that
was accepted is lost: not on stop, restart, upgrade, crash or power loss.

The commands find the gateway by its state folder (--state-dir, GATEWAY_STATE_DIR, or the configuration) and need no
token there. With --url and --token they talk to a remote gateway.`,
		Example: `  gateway run
  gateway send "hello"
  gateway doctor`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	root.Version = version()
	root.SetVersionTemplate(versionLine() + "\n")
	flags := root.PersistentFlags()
	flags.StringVar(&o.configFile, "config", "", "configuration file (GATEWAY_CONFIG)")
	flags.StringVar(&o.stateDir, "state-dir", "", "state folder (GATEWAY_STATE_DIR)")
	flags.StringVar(&o.url, "url", "", "address of a remote gateway, such as https://host:18789 (GATEWAY_URL)")
	flags.StringVar(&o.token, "token", "", "token for --url; GATEWAY_TOKEN keeps it out of process lists")
	root.AddCommand(
		newRunCommand(o), newStatusCommand(o), newSendCommand(o), newTurnsCommand(o), newLanesCommand(o), newSessionsCommand(o),
		newRestartCommand(o), newStopCommand(o), newResumeCommand(o), newStatesCommand(o), newCheckCommand(o), newConfigCommand(o),
		newServiceCommand(o), newBackupCommand(o), newDoctorCommand(o), newTopCommand(o), newChatCommand(o), newManCommand(), newVersionCommand(),
	)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	completeFlag(root, "config", completeFiles)
	completeFlag(root, "state-dir", completeFolders)
	wrapArgs(root)
	return root
}

// wrapArgs makes a wrong number of arguments an error of usage.
func wrapArgs(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
	cmd.SuggestionsMinimumDistance = 2
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil {
				return nil
			}
			try := cmd.CommandPath() + " --help"
			switch {
			case len(args) == 0:
			case strings.HasPrefix(err.Error(), "unknown command") && !cmd.HasSubCommands():
				err = fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
			default:
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					try = cmd.CommandPath() + " " + strings.Join(near, ", or "+cmd.CommandPath()+" ")
				}
			}
			return usageError(advice.Default(err, try))
		}
	}
}

// flagError returns an error of usage with an example of a valid value, without Go's words for types.
func flagError(cmd *cobra.Command, err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		flag := invalid.GetFlag()
		if value, ok := map[string]string{"int": "4", "duration": "30s", "bool": "true"}[flag.Value.Type()]; ok {
			return usageError(advice.Errorf("%q cannot be the value of --%s", invalid.GetValue(), flag.Name).Tryf("a value such as --%s=%s", flag.Name, value))
		}
	}
	return usageError(advice.Default(err, cmd.CommandPath()+" --help"))
}

// exitError is an error with the process's exit code. Its text for people ends in a Try line.
type exitError struct {
	code fsm.ExitCode
	err  error // nil when the output is already complete
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error {
	return &exitError{fsm.ExitUsage, advice.Default(err, "gateway --help")}
}

// exitCode returns the exit code of an error: 1 for an error without one of its own.
func exitCode(err error) fsm.ExitCode {
	var e *exitError
	switch {
	case err == nil:
		return fsm.ExitOK
	case errors.As(err, &e):
		return e.code
	case strings.HasPrefix(err.Error(), "unknown command"):
		return fsm.ExitUsage
	default:
		return fsm.ExitFailed
	}
}

// complain prints an error once, for people.
func complain(w io.Writer, err error) {
	var e *exitError
	if err == nil || (errors.As(err, &e) && e.err == nil) {
		return
	}
	_, _ = fmt.Fprintf(w, "gateway: %s\n", advice.Default(err, "gateway --help"))
}

// interruptible returns the command's context, which the first Ctrl-C ends, so that a command that waits
// can print what continues without it. The second Ctrl-C ends the process.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// needTerminal returns an error of usage unless both are a terminal.
func needTerminal(in io.Reader, out io.Writer, name, try string) error {
	if !terminal.Fillable(in, out) {
		return usageError(advice.Errorf("%s needs a terminal", name).Try(try))
	}
	return nil
}

// printJSON writes a document for programs.
func printJSON(w io.Writer, doc any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// report prints a result for people or for programs.
func report(cmd *cobra.Command, asJSON bool, doc any, format string, args ...any) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), doc)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}
