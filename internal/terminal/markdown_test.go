package terminal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An agent may answer with any bytes.
func FuzzMarkdownMovesNoCursor(f *testing.F) {
	f.Add("# a\n- b\n  > c `d` &#27;[2J\n\n    e\n[f](<http://x/&#7;>)")
	f.Fuzz(func(t *testing.T, answer string) {
		require.NotRegexp(t, "[\x00-\x09\x0b-\x1f\x7f\u0080-\u009f\u202e]", colour.ReplaceAllString(renderMarkdown(answer, 20), ""))
	})
}
