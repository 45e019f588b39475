package doctor

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/client/clienttest"
	"gateway/internal/config"
	"gateway/internal/statedir"
)

var program = Program{Version: "v1"}

// examined runs all checks on a state folder, with a configuration file of these lines.
func examined(t *testing.T, dir string, lines ...string) []Finding {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(append([]string{"listen: 127.0.0.1:0", "state_dir: " + dir}, lines...), "\n")), 0o600))
	return Examine(t.Context(), config.Source{File: file, Environ: []string{"HOME=" + t.TempDir()}}, program)
}

// of returns the findings of one check, a line each.
func of(findings []Finding, check string) string {
	var lines []string
	for _, f := range findings {
		if f.Check == check {
			lines = append(lines, fmt.Sprintf("%s: %s. Try: %s", f.Health, f.What, f.Try))
		}
	}
	return strings.Join(lines, "\n")
}

func private(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.Mkdir(dir, 0o700))
	return dir
}

func TestAWrongConfigurationIsTheOnlyFinding(t *testing.T) {
	found := examined(t, private(t), "lisen: x")
	require.Len(t, found, 1)
	require.Equal(t, Error, found[0].Health)
	require.Contains(t, found[0].What, "lisen: there is no such key")
	require.NotContains(t, found[0].What, "Try:")
	require.NotEmpty(t, found[0].Try)
}

func TestAFolderWithoutAGateway(t *testing.T) {
	dir := private(t)
	found := examined(t, dir)
	require.False(t, slices.ContainsFunc(found, func(f Finding) bool { return f.Health == Error }), found)
	require.Contains(t, of(found, "gateway"), "ok: not running, and the lock is free")
	require.Contains(t, of(found, "store"), "ok: none yet")
	require.Contains(t, of(found, "address"), "is free")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is written")

	require.NoError(t, os.Chmod(dir, 0o755))
	require.Contains(t, of(examined(t, dir), "state folder"), "warning: other users of this machine can read "+dir+" (mode 0755). Try: chmod 700 "+dir)
	require.Contains(t, of(examined(t, filepath.Join(dir, "deeper")), "state folder"), "ok: "+dir+"/deeper does not exist yet")
}

func TestALockWithoutAGateway(t *testing.T) {
	dir := private(t)
	lock, err := statedir.Acquire(dir)
	require.NoError(t, err)
	require.Contains(t, of(examined(t, dir), "gateway"), "error: no gateway answers, but a process holds the lock")
	require.NoError(t, lock.Release())
}

func TestATokenThatCanBeGuessed(t *testing.T) {
	require.Contains(t, of(examined(t, private(t), "auth: { token: aaaaaaaaaaaaaaaaaaaaaaaaaaa }"), "token"), "warning: the token is short or regular enough")
	require.Equal(t, "ok: set. Try: ", of(examined(t, private(t), "auth: { token: 0123456789abcdef0123456789abcdef }"), "token"))
}

func TestAClockBehindTheNewestRecord(t *testing.T) {
	dir := private(t)
	hop := fmt.Sprintf(`{"seq":1,"to":"Starting","time":%q}`+"\n", time.Now().Add(time.Hour).Format(time.RFC3339))
	require.NoError(t, os.WriteFile(filepath.Join(dir, statedir.JournalFile), []byte(hop), 0o600))
	require.Contains(t, of(examined(t, dir), "clock"), "warning: ")
}

// With a running gateway the findings of its successor count, and not those of this process.
func TestARunningGatewayChecksItsSuccessor(t *testing.T) {
	for name, c := range map[string]struct {
		check         http.HandlerFunc
		says, agents  string
		version, what string
	}{
		"ready": {
			clienttest.Document(http.StatusOK, map[string]any{"ready": true, "version": "v1", "warnings": []string{"agents.x: there is no program\nTry: install it"}}),
			"warning: agents.x: there is no program. Try: install it\nok: version v1 can take over. Try: ", "", "v1", "ok: Running since ",
		},
		"not ready": {
			clienttest.Document(http.StatusOK, map[string]any{"ready": false, "reason": "the file is wrong\nTry: another"}),
			"error: a restart would be called off: the file is wrong. Try: another", "", "v1", "ok: Running since ",
		},
		"older": {
			clienttest.Refusal(http.StatusNotFound, "unknown path"),
			"ok: not known: the running gateway is too old for this check. Try: ", "ok: 1 configured, all programs found. Try: ", "v0", "warning: Running since ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status := clienttest.Lifecycle("Running", "b1", 2)
			status["version"] = c.version
			mux := http.NewServeMux()
			mux.Handle("GET /v1/lifecycle", clienttest.Document(http.StatusOK, status))
			mux.Handle("POST /v1/lifecycle/check", c.check)
			dir, _ := clienttest.Serve(t, mux)
			found := examined(t, dir)
			require.Equal(t, c.says, of(found, "successor"))
			require.Equal(t, c.agents, of(found, "agents"))
			require.Contains(t, of(found, "gateway"), c.what)
			require.Contains(t, of(found, "store"), "ok: in use")
			require.Contains(t, of(found, "restart"), "ok: by exec (auto)")
		})
	}
}
