package terminal

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProgressPrintsNothingWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out)
	require.False(t, p.Visible())
	p.Show("nothing")
	p.End()
	require.Empty(t, out.String())
}
