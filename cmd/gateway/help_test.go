package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// The help texts are the manual pages: each describes the command and has an example.
func TestEveryCommandHasAHelpThatIsAManual(t *testing.T) {
	var out bytes.Buffer
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			return // cobra's own
		}
		path := cmd.CommandPath()
		require.NotEmpty(t, cmd.Short, path)
		require.False(t, strings.HasSuffix(cmd.Short, "."), path)
		require.NotEmpty(t, cmd.Example, path)
		for line := range strings.Lines(cmd.Example) {
			require.True(t, strings.HasPrefix(line, "  "), "%s: %q", path, line)
		}
		require.Contains(t, cmd.Example, "gateway", path)
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	root := newRootCommand(&out, &out, &out)
	root.InitDefaultCompletionCmd()
	look(root)
}
