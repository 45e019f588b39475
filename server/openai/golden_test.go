package openai

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

func asAPIError(t *testing.T, err error) *api.Error {
	t.Helper()
	var e *api.Error
	require.ErrorAs(t, err, &e)
	return e
}

var rewrite = flag.Bool("rewrite", false, "write the golden files instead of comparing with them")

// golden compares got with a file that is reviewed like code.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
