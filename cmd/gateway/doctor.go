package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/doctor"
)

func newDoctorCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything and print how to fix what is wrong",
		Long: `Check the configuration, the state folder, its disk and its lock, the address, the agents' programs, the
token, the supervisor, the clock and the store. Print what is wrong and how to fix it. A running gateway checks whether
a restart would work, with its own configuration and environment. The command changes nothing. Exits with 1 when it
finds an error; warnings are not errors.`,
		Example: `  gateway doctor
  gateway doctor --json | jq '.[] | select(.health != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.url != "" || os.Getenv("GATEWAY_URL") != "" {
				return usageError(advice.Errorf("doctor checks only this machine").Try("gateway doctor without --url and GATEWAY_URL, on the machine of the gateway"))
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			found := doctor.Examine(ctx, o.source(), doctor.Program{Version: version(), Built: buildTime()})
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), found); err != nil {
					return err
				}
			} else if err := printFindings(cmd.OutOrStdout(), found); err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Health == doctor.Error }) {
				return &exitError{code: fsm.ExitFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFindings(w io.Writer, all []doctor.Finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	counts := make(map[doctor.Health]int)
	for _, f := range all {
		counts[f.Health]++
		lines := strings.Split(strings.TrimSpace(f.What), "\n")
		if f.Try != "" {
			lines = append(lines, "Try: "+f.Try)
		}
		name, state := f.Check, string(f.Health)
		for _, line := range lines {
			_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", state, name, line)
			name, state = "", ""
		}
	}
	_, _ = fmt.Fprintf(t, "%d ok, %d warnings, %d errors\n", counts[doctor.OK], counts[doctor.Warning], counts[doctor.Error])
	return t.Flush()
}
