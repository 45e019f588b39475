package handoff

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gateway/internal/statedir"
	"gateway/server/carry"
)

// The test binary is also the other process of these tests: GATEWAY_TEST_ROLE says which.
func TestMain(m *testing.M) {
	switch os.Getenv("GATEWAY_TEST_ROLE") {
	case "":
		goleak.VerifyTestMain(m)
	case "prepared", "refuses", "silent", "hangs":
		candidateMain(os.Getenv("GATEWAY_TEST_ROLE"))
	case "image":
		imageMain()
	case "relay":
		relayMain()
	case "takes over", "fails", "dies prepared", "dies going", "dies ready", "dies told", "hangs going":
		successorMain(os.Getenv("GATEWAY_TEST_ROLE"))
	}
}

func self(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GATEWAY_TEST_ROLE="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

func candidateMain(role string) {
	p, err := Asked()
	if err != nil || p == nil {
		os.Exit(9)
	}
	switch role {
	case "prepared":
		_ = p.Answer("v2 "+p.StateDir, []string{"a program is missing", strings.Repeat("x", clipLimit)}, nil)
	case "refuses":
		_ = p.Answer("", nil, errors.New("listen: no such address"))
	case "silent":
		fmt.Fprintln(os.Stderr, "what is this?")
	case "hangs":
		_, _ = fmt.Fprintln(os.Stdout)
		select {}
	}
}

func TestPrepareReportsWhyASuccessorCannotTakeOver(t *testing.T) {
	t.Setenv("X", "1")
	for role, want := range map[string]string{
		"refuses": "refuses to take over: listen: no such address",
		"silent":  "what is this?",
		"hangs":   "no answer within",
	} {
		t.Setenv("GATEWAY_TEST_ROLE", role)
		limit := time.Minute
		if role == "hangs" {
			limit = time.Second
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("no answer within %s", limit))
		_, _, err := Prepare(ctx, os.Args[0], []string{"gateway", "run"}, Question{StateDir: "/state"})
		cancel()
		require.ErrorContains(t, err, want, role)
	}
	t.Setenv("GATEWAY_TEST_ROLE", "prepared")
	v, warnings, err := Prepare(t.Context(), os.Args[0], []string{"gateway", "run"}, Question{StateDir: "/state"})
	require.NoError(t, err)
	require.Equal(t, "v2 /state", v)
	require.Equal(t, []string{"a program is missing"}, warnings, "what is too long for a message is left out")

	broken := filepath.Join(t.TempDir(), "gateway")
	require.NoError(t, os.WriteFile(broken, []byte("not a program"), 0o700))
	_, _, err = Prepare(t.Context(), broken, []string{"gateway"}, Question{})
	require.ErrorContains(t, err, "cannot be started")
	_, _, err = Prepare(t.Context(), filepath.Join(t.TempDir(), "gone"), []string{"gateway"}, Question{})
	require.ErrorContains(t, err, "cannot be started")
	_, _, err = Prepare(t.Context(), "/bin/true", []string{"gateway"}, Question{})
	require.ErrorContains(t, err, "is /bin/true this program?")
}

// imageMain is a small gateway: it holds a lock and a listener, and replaces its image once.
func imageMain() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	dir := os.Args[1]
	doc, err := Inherit()
	fail(err)
	if doc == nil {
		lock, err := statedir.Acquire(dir)
		fail(err)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		fail(err)
		held, err := ln.Accept()
		fail(err)
		fmt.Println(os.Getpid(), ln.Addr())
		path, err := Executable(os.Args[0])
		fail(err)
		fail(Exec(path, os.Args, Handover{
			About: About{BootID: "one", StateDir: dir}, Lock: lock, Listener: ln.(*net.TCPListener),
			Conns: []carry.Connection{{Conn: held, Unanswered: []byte("read before")}},
		}))
	}
	lock, err := statedir.Adopt(dir, doc.Lock())
	fail(err)
	_, rival := statedir.Acquire(dir)
	ln, err := doc.Listener()
	fail(err)
	carried, err := doc.Conns()
	fail(err)
	_, err = fmt.Fprintf(carried[0].Conn, "%s, answered by %d\n", carried[0].Unanswered, os.Getpid())
	fail(err)
	fmt.Println(os.Getpid(), ln.Addr(), doc.BootID, rival != nil)
	_, again := os.LookupEnv(handoverEnv)
	fmt.Println("environment still names the document:", again)
	fail(lock.Release())
}

func TestExecKeepsTheProcessTheLockTheListenerAndHeldConnections(t *testing.T) {
	// The address is known only once the child listens, but it prints it after the first connection; so it
	// listens on a port that the kernel names through /proc.
	dir := t.TempDir()
	cmd := self(t, "image", dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	addr := listening(t, cmd.Process.Pid)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, fmt.Sprintf("%d %s", cmd.Process.Pid, addr), lines.Text())
	require.True(t, lines.Scan())
	require.Equal(t, fmt.Sprintf("%d %s one true", cmd.Process.Pid, addr), lines.Text())
	require.True(t, lines.Scan())
	require.Equal(t, "environment still names the document: false", lines.Text())
	answer, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("read before, answered by %d\n", cmd.Process.Pid), answer)
	require.NoError(t, cmd.Wait())
}

// relayMain hands the lock to a new image of itself, again and again.
func relayMain() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	dir := os.Args[1]
	left, err := strconv.Atoi(os.Args[2])
	fail(err)
	doc, err := Inherit()
	fail(err)
	asked, err := Asked()
	fail(err)
	if asked != nil {
		fail(asked.Answer("", nil, nil))
		doc, err = asked.AwaitGo()
		fail(err)
	}
	var lock *statedir.Lock
	if doc == nil {
		lock, err = statedir.Acquire(dir)
		fmt.Println("begun")
	} else {
		lock, err = statedir.Adopt(dir, doc.Lock())
	}
	fail(err)
	if asked != nil {
		_, err = asked.Ready(context.Background())
		fail(err)
		fail(lock.Claim())
	}
	if left == 0 {
		fmt.Println("handed over")
		_, err := os.ReadFile(filepath.Join(dir, "until")) // a named pipe: until the test opens it too
		fail(err)
		fail(lock.Release())
		return
	}
	next := []string{os.Args[0], dir, strconv.Itoa(left - 1)}
	if left%2 == 0 { // by exec and by spawn in turn
		fail(Exec(os.Args[0], next, Handover{Lock: lock}))
	}
	s, err := Spawn(context.Background(), os.Args[0], next, Question{StateDir: dir, Stay: true})
	fail(err)
	fail(s.Go(context.Background(), Handover{Lock: lock}))
	fail(s.Serve(nil))
	fail(lock.Leave())
}

// GATEWAY_TEST_HANDOVERS makes it longer.
func TestAContenderNeverGetsTheLockDuringHandOvers(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 20
	}
	if s := os.Getenv("GATEWAY_TEST_HANDOVERS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	cmd := self(t, "relay", dir, strconv.Itoa(n))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "until"), 0o600))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "begun", lines.Text())
	over := make(chan string, 1)
	go func() {
		lines.Scan()
		over <- lines.Text()
	}()
	guard, err := os.OpenFile(filepath.Join(dir, statedir.LockFile), os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = guard.Close() }()
	tries := 0
	for end := ""; end == ""; tries++ { // as Acquire does, and more often
		err := unix.Flock(int(guard.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		require.ErrorIs(t, err, unix.EWOULDBLOCK, "the contender has the lock after %d tries", tries)
		select {
		case end = <-over:
			require.Equal(t, "handed over", end)
		default:
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "until"), nil, 0o600))
	require.NoError(t, cmd.Wait())
	t.Logf("%d hand-overs against %d tries", n, tries)
}

// listening waits until the process listens and returns the address.
func listening(t *testing.T, pid int) string {
	t.Helper()
	var addr string
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
		if err != nil {
			return false
		}
		inodes := make(map[string]bool)
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, fd := range fds {
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
			inodes[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && inodes[f[9]] {
				port, err := strconv.ParseUint(strings.TrimPrefix(f[1], "0100007F:"), 16, 16)
				if err == nil {
					addr = fmt.Sprintf("127.0.0.1:%d", port)
				}
			}
		}
		return addr != ""
	}, time.Minute, 10*time.Millisecond)
	return addr
}

func TestExecThatFailsLeavesTheCallerAsItWas(t *testing.T) {
	dir := t.TempDir()
	lock, err := statedir.Acquire(dir)
	require.NoError(t, err)
	var before, after unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	err = Exec(filepath.Join(t.TempDir(), "gone"), []string{"gateway"}, Handover{Lock: lock})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &after))
	require.Equal(t, before, after, "the limit of open files is what it was")
	_, err = statedir.Acquire(dir)
	var held *statedir.HeldError
	require.ErrorAs(t, err, &held, "the lock is still held")
	require.NoError(t, lock.Release())
}

func TestInheritRefusesADocumentThatIsNone(t *testing.T) {
	for _, value := range []string{"x", "1", "-4"} {
		t.Setenv(handoverEnv, value)
		_, err := Inherit()
		require.ErrorContains(t, err, "is not a descriptor")
	}
	require.NoError(t, os.Unsetenv(handoverEnv))
	doc, err := Inherit()
	require.NoError(t, err)
	require.Nil(t, doc)
}

func TestTheExecutableIsResolvedWithoutFollowingLinks(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "gateway")
	require.NoError(t, os.Symlink("/bin/true", link))
	got, err := Executable(link)
	require.NoError(t, err)
	require.Equal(t, link, got)
	t.Chdir(dir)
	got, err = Executable("./gateway")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, ".", "gateway"), filepath.Clean(got))
	t.Setenv("PATH", dir)
	got, err = Executable("gateway")
	require.NoError(t, err)
	require.Equal(t, link, got)
}
