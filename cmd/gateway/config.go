package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/config"
)

func newCheckCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the configuration, and warn of missing programs", Args: cobra.NoArgs,
		Long: `Check the configuration and print every mistake, with its place and what to try. Warns of what cannot work on this
machine, such as missing programs. Exits with 78 when the configuration is not valid.`,
		Example: "  gateway check --config gateway.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := config.Load(o.source())
			if err != nil {
				return &exitError{fsm.ExitConfig, err}
			}
			for _, w := range l.Warnings() {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "gateway: warning: %s\n", w)
			}
			from := "no file; the defaults"
			if l.File != "" {
				from = l.File
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "valid (%s)\n", from)
			return err
		},
	}
}

func newConfigCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show the configuration, or write a new one", Example: "  gateway config init\n  gateway config show", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var force bool
	initCmd := &cobra.Command{
		Use: "init [PATH]", Short: "Write a commented configuration file that changes nothing yet", Args: cobra.MaximumNArgs(1),
		Example:           "  gateway config init\n  gateway config init ./gateway.yaml",
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := o.configFile
			if len(args) > 0 {
				path = args[0]
			}
			if path == "" {
				path = os.Getenv("GATEWAY_CONFIG")
			}
			if path == "" {
				dir, err := os.UserConfigDir()
				if err != nil {
					return advice.Errorf("there is no configuration folder: %w", err).Try("gateway config init PATH")
				}
				path = filepath.Join(dir, "gateway", "gateway.yaml")
			}
			return writeTemplate(cmd, path, force)
		},
	}
	initCmd.Flags().BoolVar(&force, "force", false, "overwrite an existing file")
	var asJSON bool
	show := &cobra.Command{
		Use: "show", Short: "Show the configuration and the origin of each value", Args: cobra.NoArgs,
		Long:    "Show the configuration that a gateway started from here would use, and the origin of each value. Secrets are not shown.",
		Example: "  gateway config show\n  gateway config show --json | jq .",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := config.Load(o.source())
			if err != nil {
				return &exitError{fsm.ExitConfig, err}
			}
			if asJSON {
				doc, err := l.Document()
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), doc)
			}
			b, err := l.Show()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(initCmd, show)
	return cmd
}

func writeTemplate(cmd *cobra.Command, path string, force bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return advice.Errorf("writing the configuration: %w", err).Try("gateway config init PATH")
	}
	flag := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flag = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return advice.Errorf("%s exists already", path).Try("--force to overwrite it")
	}
	if err != nil {
		return advice.Errorf("writing the configuration: %w", err).Try("gateway config init PATH")
	}
	err = f.Chmod(0o600) // an existing file may be readable by others, and the file will hold tokens
	if err == nil {
		_, err = f.Write(config.Template())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return advice.Errorf("writing the configuration: %w", err).Try("is the disk full?")
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
	return err
}
