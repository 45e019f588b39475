// Package arrows holds the direction of the imports: which room may know which.
package arrows

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// allowed lists what each package of ours may import of ours. cmd/gateway knows all rooms, and nothing else knows
// internal/daemon, which wires the rooms of a gateway that runs.
var allowed = map[string][]string{
	"gateway/fsm":                {},
	"gateway/fsm/explore":        {},
	"gateway/queue":              {"gateway/internal/failpoint"},
	"gateway/server":             {"gateway/queue", "gateway/fsm", "gateway/server/api", "gateway/server/carry", "gateway/server/openai", "gateway/server/openclaw"},
	"gateway/server/carry":       {},
	"gateway/server/api":         {"gateway/queue"},
	"gateway/server/openai":      {"gateway/queue", "gateway/internal/conversation", "gateway/server/api"},
	"gateway/server/openclaw":    {"gateway/fsm", "gateway/queue", "gateway/server/api"},
	"gateway/internal/daemon":    {"gateway/fsm", "gateway/queue", "gateway/server", "gateway/server/api", "gateway/server/carry", "gateway/internal/agent", "gateway/internal/config", "gateway/internal/process", "gateway/internal/statedir", "gateway/internal/handoff", "gateway/internal/child", "gateway/internal/failpoint"},
	"gateway/internal/agent":     {"gateway/queue", "gateway/internal/config", "gateway/internal/conversation", "gateway/internal/child"},
	"gateway/internal/config":    {"gateway/fsm"},
	"gateway/internal/process":   {},
	"gateway/internal/handoff":   {"gateway/fsm", "gateway/internal/failpoint", "gateway/internal/child", "gateway/server/carry"},
	"gateway/internal/statedir":  {},
	"gateway/internal/child":     {},
	"gateway/internal/failpoint": {},
	"gateway/internal/service":   {},
	"gateway/internal/arrows":    {},
	"gateway/internal/benchpage": {},
	"gateway/internal/turnspage": {"gateway/queue", "gateway/internal/config"},
	"gateway/internal/certify":   {},
	"gateway/internal/described": {},
	"gateway/internal/puppet":    {"gateway/queue"},
	"gateway/internal/wire":      {},

	// What a turn keeps, for those who write it and those who read it.
	"gateway/internal/conversation": {"gateway/queue"},

	// Whatever fails may say what to try.
	"gateway/internal/advice": {},

	// What talks to a gateway knows its documents, and never the daemon.
	"gateway/internal/client":            {"gateway/fsm", "gateway/queue", "gateway/server", "gateway/server/api", "gateway/internal/statedir"},
	"gateway/internal/client/clienttest": {"gateway/internal/statedir"},
	"gateway/internal/terminal":          {"gateway/fsm", "gateway/queue", "gateway/server", "gateway/internal/client"},
	"gateway/internal/doctor":            {"gateway/fsm", "gateway/queue", "gateway/internal/client", "gateway/internal/config", "gateway/internal/handoff", "gateway/internal/statedir"},
}

func TestArrowsPointOneWay(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports ","}}`, "gateway/...").Output()
	require.NoError(t, err)
	seen := 0
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		may, known := allowed[pkg]
		require.True(t, known || pkg == "gateway/cmd/gateway", "%s has no place in the house; give it one here", pkg)
		seen++
		for imp := range strings.SplitSeq(imports, ",") {
			require.NotEqual(t, "gateway/cmd/gateway", imp, pkg)
			if known && strings.HasPrefix(imp, "gateway/") && imp != "gateway/internal/advice" {
				require.True(t, slices.Contains(may, imp), "%s must not import %s", pkg, imp)
			}
		}
	}
	require.Equal(t, len(allowed)+1, seen)
}

// Every start pays for what the packages of the program prepare, and a restart waits for a start.
func TestNothingIsLinkedThatMakesStartsSlow(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "gateway/cmd/gateway").Output()
	require.NoError(t, err)
	for _, slow := range []string{"github.com/alecthomas/chroma", "github.com/microcosm-cc/bluemonday", "charm.land/glamour"} {
		require.NotContains(t, string(out), slow)
	}
}

// A time that passes is no fact to wait for. In a synctest bubble time is part of the test; nowhere else does anything
// sleep.
func TestNothingSleepsOutsideABubble(t *testing.T) {
	seen := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte("time."+"Sleep(")) {
			return err
		}
		seen++
		require.True(t, strings.HasSuffix(path, "_test.go"), "%s: wait for a fact, with an end", path)
		require.Contains(t, string(b), `"testing/synctest"`, "%s: wait for a fact, or use virtual time", path)
		return nil
	}))
	require.NotZero(t, seen)
}

// A program that the gateway starts past gateway/internal/child may lose its exit status to the reaper of orphans.
// The harness is a program of its own.
func TestProgramsAreStartedByOneRoom(t *testing.T) {
	starts := regexp.MustCompile(`\.(Start|Run|Output|CombinedOutput|Wait)\(\)`)
	seen := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte(`"os/exec"`)) || slices.Contains([]string{"child", "certify"}, filepath.Base(filepath.Dir(path))) {
			return err
		}
		seen++
		require.False(t, starts.Match(b), "%s: use gateway/internal/child", path)
		require.NotContains(t, string(b), "os.StartProcess", path)
		return nil
	}))
	require.NotZero(t, seen)
}
