package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gateway/fsm"
)

// doctorTime bounds all examinations together. A large store takes longest.
const doctorTime = 2 * time.Minute

// health is what an examination found.
type health string

const (
	healthy health = "ok"
	warning health = "warning" // it works, but may not for long, or not as meant
	broken  health = "error"   // it does not work
)

// finding is one thing that was looked at. Its texts hold no secrets.
type finding struct {
	Check  string `json:"check"`
	Health health `json:"health"`
	// What was found, and how to mend it; Try is empty when nothing has to be.
	What string `json:"what"`
	Try  string `json:"try,omitempty"`
}

func newDoctorCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, and say how to mend it",
		Long: `Look at the configuration, the state folder, its disk and its lock, the address, the agents' programs, the
token, the supervisor, the clock and the store, and say what is wrong and how to mend it. A gateway that runs is asked
whether a restart would work, with its own configuration and environment. It changes nothing, whether a gateway runs
or not. Exits with 1 when something does not work; warnings are no failure.`,
		Example: `  gateway doctor
  gateway doctor --json | jq '.[] | select(.health != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.url != "" || environment("GATEWAY_URL") != "" {
				return usageError(errors.New("doctor looks at this machine\nTry: gateway doctor without --url and GATEWAY_URL, on the machine of the gateway"))
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, doctorTime)
			defer cancel()
			x := examination{o: o}
			x.examine(ctx)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), x.findings); err != nil {
					return err
				}
			} else if err := printFindings(cmd.OutOrStdout(), x.findings); err != nil {
				return err
			}
			if x.count(broken) > 0 {
				return &exitError{code: fsm.ExitFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFindings(w io.Writer, all []finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	counts := make(map[health]int)
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
	_, _ = fmt.Fprintf(t, "%d ok, %d to look at, %d that do not work\n", counts[healthy], counts[warning], counts[broken])
	return t.Flush()
}
