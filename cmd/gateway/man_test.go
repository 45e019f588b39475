package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra/doc"
	"github.com/stretchr/testify/require"
)

// TestTheManualIsThatOfTheCommands makes the pages anew. With GATEWAY_TEST_MANUAL=write, as `make generate` has it, it
// puts them in the place of those that are embedded.
func TestTheManualIsThatOfTheCommands(t *testing.T) {
	var out bytes.Buffer
	root := newRootCommand(&out, &out, &out)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	dir, month := t.TempDir(), time.Unix(0, 0).UTC()
	require.Equal(t, manualMonth, month.Format("Jan 2006"))
	require.NoError(t, doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: manualVersion, Manual: "gateway", Date: &month}, dir))
	if os.Getenv("GATEWAY_TEST_MANUAL") == "write" {
		require.NoError(t, os.RemoveAll("manual"))
		require.NoError(t, os.CopyFS("manual", os.DirFS(dir)))
	}
	made, err := filepath.Glob(filepath.Join(dir, "*.1"))
	require.NoError(t, err)
	kept, err := filepath.Glob("manual/*.1")
	require.NoError(t, err)
	require.Len(t, kept, len(made), "Try: make generate")
	for _, page := range made {
		want, err := os.ReadFile(page)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join("manual", filepath.Base(page)))
		require.NoError(t, err, "Try: make generate")
		require.Equal(t, string(want), string(got), "%s is behind the commands. Try: make generate", filepath.Base(page))
	}
}
