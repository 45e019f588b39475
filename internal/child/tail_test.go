package child

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATailKeepsTheLastBytes(t *testing.T) {
	tail := &Tail{Limit: 5}
	for _, step := range []struct{ write, kept string }{
		{"", ""}, {"abc", "abc"}, {"de", "abcde"}, {"f", "bcdef"}, {strings.Repeat("x", 100) + "12345", "12345"}, {"é", "345é"}, {"6789", "\uFFFD6789"},
	} {
		n, err := tail.Write([]byte(step.write))
		require.NoError(t, err)
		require.Equal(t, len(step.write), n)
		require.Equal(t, step.kept, tail.String())
	}
	none := &Tail{}
	_, err := none.Write([]byte("x"))
	require.NoError(t, err)
	require.Empty(t, none.String())
}
