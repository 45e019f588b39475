package statedir

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The test binary is also the process that holds the lock, with GATEWAY_TEST_ROLE=hold.
func TestMain(m *testing.M) {
	if os.Getenv("GATEWAY_TEST_ROLE") != "hold" {
		goleak.VerifyTestMain(m)
		return
	}
	_, err := Acquire(os.Args[1])
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, os.Stdin) // holds the lock until the test closes standard input
}

func holdLock(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), "GATEWAY_TEST_ROLE=hold")
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>\n", line)
	return cmd
}

func TestASecondGatewayIsRefusedAndToldWhoHoldsTheLock(t *testing.T) {
	dir := t.TempDir()
	first, err := Acquire(dir)
	require.NoError(t, err)
	require.NoError(t, first.Describe(Owner{PID: os.Getpid(), Address: "127.0.0.1:18789", Since: time.Now()}))
	_, err = Acquire(dir)
	var held *HeldError
	require.ErrorAs(t, err, &held)
	require.ErrorContains(t, err, "pid "+strconv.Itoa(os.Getpid())+", listening on 127.0.0.1:18789")
	require.NoError(t, first.Release())
	again, err := Acquire(dir)
	require.NoError(t, err)
	require.NoError(t, again.Release())
}

func TestTheLockDiesWithItsProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := holdLock(t, dir)
	_, err := Acquire(dir)
	require.Error(t, err)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	l, err := Acquire(dir)
	require.NoError(t, err, "a stale lockfile of a dead process does not hold the lock")
	require.NoError(t, l.Release())
}

func TestAProcessThatIsKilledIsOnItsWayOut(t *testing.T) {
	cmd := holdLock(t, t.TempDir())
	require.False(t, dying(cmd.Process.Pid))
	require.NoError(t, cmd.Process.Kill())
	require.Eventually(t, func() bool { return dying(cmd.Process.Pid) }, time.Minute, time.Millisecond, "a zombie until it is waited for")
	_ = cmd.Wait()
	require.False(t, dying(cmd.Process.Pid), "the process is gone")
}

func TestTheRemnantOfAKilledGatewayIsWaitedForAndNotForEver(t *testing.T) {
	dir := t.TempDir()
	remnant, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, flock(remnant))
	require.NoError(t, os.WriteFile(filepath.Join(dir, PIDFile), []byte("999999999\n"), 0o600)) // no such process
	_, err = Acquire(dir)
	var held *HeldError
	require.ErrorAs(t, err, &held)
	gone := time.AfterFunc(100*time.Millisecond, func() { _ = remnant.Close() })
	defer gone.Stop()
	l, err := Acquire(dir)
	require.NoError(t, err)
	require.NoError(t, l.Release())
}

func TestAReusedProcessNumberDoesNotHoldTheLock(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, PIDFile), []byte("1\n"), 0o600)) // alive, and not a gateway
	l, err := Acquire(dir)
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, PIDFile))
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(os.Getpid()), strings.TrimSpace(string(b)))
	require.NoError(t, l.Release())
}

func TestManyStartersHaveOneOwner(t *testing.T) {
	dir := t.TempDir()
	for range 30 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, PIDFile), []byte("999999\n"), 0o600)) // stale
		var wg sync.WaitGroup
		locks := make(chan *Lock, 16)
		for range cap(locks) {
			wg.Go(func() {
				if l, err := Acquire(dir); err == nil {
					locks <- l
				}
			})
		}
		wg.Wait()
		close(locks)
		require.Len(t, locks, 1)
		for l := range locks {
			require.NoError(t, l.Release())
		}
	}
}

func TestAnUnwritableStateFolderIsAClearError(t *testing.T) {
	if os.Getuid() == 0 {
		_, err := Acquire("/proc/gateway") // not even root may write there
		require.ErrorContains(t, err, "the state folder /proc/gateway cannot be used")
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	_, err := Acquire(filepath.Join(dir, "state"))
	require.ErrorIs(t, err, os.ErrPermission)
}
