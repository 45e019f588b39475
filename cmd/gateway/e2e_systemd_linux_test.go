package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnderARealSystemd installs the service under a user's manager of its own, in namespaces, and does what
// people do: planned restarts are not counted, a death is, and what needs a person is not tried again.
func TestUnderARealSystemd(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	if _, err := exec.LookPath("systemctl"); err != nil {
		t.Skip("systemd is not installed")
	}
	unshare := []string{"unshare", "--mount", "--pid", "--cgroup", "--fork", "--mount-proc"}
	if os.Getuid() != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
	}
	trial := exec.CommandContext(t.Context(), unshare[0], append(unshare[1:], "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /run")...)
	if out, err := trial.CombinedOutput(); err != nil {
		t.Skipf("this system gives no namespaces for it: %v: %s", err, out)
	}
	t.Parallel()
	house := t.TempDir()
	program := filepath.Join(house, "gateway") // its name is what pgrep counts
	copyFile(t, binary(t), program)
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	cmd := exec.CommandContext(t.Context(), unshare[0], append(unshare[1:], "sh", "testdata/systemd/user.sh")...)
	cmd.Env = append(os.Environ(), "GATEWAY="+program, "HOUSE="+house, fmt.Sprint("PORT=", port), raceOptions)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code == 91 {
		t.Skip("a user's systemd does not come up here: " + errOut.String())
	}
	require.NoError(t, err, "%s%s", &out, &errOut)
	require.Equal(t, strings.TrimSpace(`
installed: active, restarts 0, other process
20 by exec: active, restarts 0, same process
6 in place: active, restarts 0, same process
last in place: active, restarts 0, same process
1 by spawn: active, restarts 0, other process
5 by spawn: active, restarts 0, other process
reload refused
broken configuration: active, restarts 0, same process
killed: active, restarts 1, other process
stopped by SIGSTOP: active, restarts 2, other process
by supervisor: active, restarts 3, other process
will not start: failed, exit 78, restarts 0
stopped: inactive, left: 0
uninstalled: 0 files
socket alone: inactive
it waits in the socket
socket: active, restarts 0, same process
1
left: 0`), strings.TrimSpace(out.String()), errOut.String())
}
