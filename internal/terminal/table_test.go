package terminal

import (
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/require"
)

func TestATableForProgramsIsNotCut(t *testing.T) {
	var out strings.Builder
	table := NewTable(&out, "ID", "INPUT", "")
	table.Row("a", strings.Repeat("long ", 100), "paused")
	table.Row("語語", "short", "")
	require.NoError(t, table.Flush())
	lines := strings.Split(out.String(), "\n")
	require.Equal(t, "a     "+strings.Repeat("long ", 100)+"  paused", lines[1])
	require.Equal(t, "語語  short"+strings.Repeat(" ", 497), lines[2])
}

func TestATableFitsTheTerminal(t *testing.T) {
	for _, width := range []int{200, 80, 50} {
		var out strings.Builder
		table := NewTable(&out)
		table.width = width
		table.Row("ID", "SESSION", "STATUS", "INPUT")
		table.Row("d9s4q2mkp7c1v0f8b3ag", strings.Repeat("語", 60), "completed", strings.Repeat("word ", 50))
		table.Row("d9s4q2mkp7c1v0f8b3ag", "main", "running", "hello")
		require.NoError(t, table.Flush())
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, ansi.StringWidth(strings.TrimSuffix(line, "\n")), width, "%q", line)
		}
		require.Contains(t, out.String(), "main")
		if width >= 80 {
			require.Contains(t, out.String(), "d9s4q2mkp7c1v0f8b3ag", "what is long is cut before what is short")
		}
	}
}
