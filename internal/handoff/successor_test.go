package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gateway/internal/statedir"
	"gateway/server/carry"
)

// successorMain is a small gateway that takes over: it answers each connection with what was read from it.
func successorMain(role string) {
	die := func(at string) {
		if role == "dies "+at {
			os.Exit(7)
		}
	}
	p, err := Asked()
	if err != nil || p == nil {
		os.Exit(9)
	}
	if err := p.Answer("v2", nil, nil); err != nil {
		os.Exit(8)
	}
	die("prepared")
	doc, err := p.AwaitGo()
	if errors.Is(err, ErrDismissed) {
		os.Exit(0)
	}
	if err != nil {
		os.Exit(6)
	}
	die("going")
	if role == "hangs going" {
		select {}
	}
	if role == "fails" {
		p.Failed("the store is damaged")
		os.Exit(1)
	}
	lock, err := statedir.Adopt(doc.StateDir, doc.Lock())
	if err != nil {
		os.Exit(5)
	}
	if last, err := p.Ready(context.Background()); err != nil || (last != nil && string(last) != `{"seq":7}`) { // none when the predecessor died
		os.Exit(4)
	}
	die("told")
	if err := lock.Claim(); err != nil {
		os.Exit(3)
	}
	answer := func(conns []carry.Connection) {
		for _, c := range conns {
			_, _ = fmt.Fprintf(c.Conn, "%s, answered by %s\n", c.Unanswered, role)
			_ = c.Close()
		}
	}
	conns, err := doc.Conns()
	if err != nil {
		os.Exit(2)
	}
	answer(conns)
	p.Forwarded(answer)
	_ = lock.Release()
}

// pairs returns n connections: the clients' ends, and the others as they are carried.
func pairs(t *testing.T, n int, read string) (clients []net.Conn, carried []carry.Connection) {
	t.Helper()
	for i := range n {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		require.NoError(t, err)
		var ends [2]net.Conn
		for i, fd := range fds {
			unix.CloseOnExec(fd)
			f := os.NewFile(uintptr(fd), "end")
			ends[i], err = net.FileConn(f)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			t.Cleanup(func() { _ = ends[i].Close() })
		}
		clients = append(clients, ends[0])
		carried = append(carried, carry.Connection{Conn: ends[1], Unanswered: fmt.Appendf(nil, "%s %d", read, i)})
	}
	return clients, carried
}

func closeAll(t *testing.T, carried []carry.Connection) {
	t.Helper()
	for _, c := range carried {
		require.NoError(t, c.Close())
	}
}

func spawn(t *testing.T, role string) (*Successor, *statedir.Lock, Handover, []net.Conn) {
	t.Helper()
	t.Setenv("GATEWAY_TEST_ROLE", role)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	dir := t.TempDir()
	lock, err := statedir.Acquire(dir)
	require.NoError(t, err)
	s, err := Spawn(t.Context(), os.Args[0], []string{"gateway", "run"}, Question{StateDir: dir, Stay: true})
	require.NoError(t, err)
	require.Equal(t, "v2", s.Version)
	clients, carried := pairs(t, 450, "request") // more than go with one write
	return s, lock, Handover{About: About{BootID: "one", StateDir: dir}, Lock: lock, Conns: carried}, clients
}

func TestASuccessorTakesOverTheLockAndEveryConnection(t *testing.T) {
	s, lock, doc, ours := spawn(t, "takes over")
	require.NoError(t, s.Go(t.Context(), doc))
	closeAll(t, doc.Conns)
	require.NoError(t, s.Serve(json.RawMessage(`{"seq":7}`)))
	require.NoError(t, lock.Leave())
	_, err := statedir.Acquire(doc.StateDir)
	require.Error(t, err, "the successor has it")
	late, carried := pairs(t, 3, "late")
	require.NoError(t, s.Forward(carried))
	closeAll(t, carried)
	for i, c := range append(ours, late...) {
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		want := fmt.Sprintf("request %d, answered by takes over\n", i)
		if i >= len(ours) {
			want = fmt.Sprintf("late %d, answered by takes over\n", i-len(ours))
		}
		require.Equal(t, want, string(b))
	}
	s.Leave() // it goes on alone; this one then ends
	<-s.ended
	require.NoError(t, s.err)
	again, err := statedir.Acquire(doc.StateDir)
	require.NoError(t, err)
	require.NoError(t, again.Release())
}

func TestASuccessorThatEndsOrHangsIsTakenBack(t *testing.T) {
	for role, want := range map[string]string{
		"dies prepared": "ended before it was ready: exit status 7",
		"dies going":    "ended before it was ready: exit status 7",
		"fails":         "could not start: the store is damaged",
		"hangs going":   "too long",
	} {
		t.Run(role, func(t *testing.T) {
			s, lock, doc, ours := spawn(t, role)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, errors.New("too long"))
			defer cancel()
			err := s.Go(ctx, doc)
			if err != nil && strings.Contains(err.Error(), "broken pipe") {
				want = "broken pipe" // it died before we spoke
			}
			require.ErrorContains(t, err, want)
			s.Dismiss()
			<-s.ended
			_, err = doc.Conns[7].Write([]byte("answered here")) // the successor has neither read nor written
			require.NoError(t, err)
			closeAll(t, doc.Conns)
			b, err := io.ReadAll(ours[7])
			require.NoError(t, err)
			require.Equal(t, "answered here", string(b))
			require.NoError(t, lock.Claim())
			require.NoError(t, lock.Release())
		})
	}
}

func TestASuccessorThatIsNotNeededEndsByItself(t *testing.T) {
	s, lock, _, _ := spawn(t, "takes over")
	s.Dismiss()
	require.NoError(t, s.err, "it was not killed")
	require.NoError(t, lock.Release())
}

func TestASuccessorGoesOnWhenThePredecessorDies(t *testing.T) {
	s, lock, doc, ours := spawn(t, "takes over")
	require.NoError(t, s.Go(t.Context(), doc))
	closeAll(t, doc.Conns)
	require.NoError(t, lock.Leave()) // as the death of a process does
	s.Leave()
	b, err := io.ReadAll(ours[3])
	require.NoError(t, err)
	require.Equal(t, "request 3, answered by takes over\n", string(b))
	<-s.ended
}

// The two sides cannot come to different ends: what is said before the successor gives up counts, and after
// that nothing can be said.
func TestASuccessorThatGivesUpIsNotToldToServe(t *testing.T) {
	ours, theirs, err := newLink()
	require.NoError(t, err)
	fd, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	require.NoError(t, err)
	require.NoError(t, theirs.Close())
	link, err := openLink(fd)
	require.NoError(t, err)
	p := &Predecessor{link: link}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("too late"))
	_, err = p.Ready(ctx)
	require.ErrorContains(t, err, "too late")
	s := &Successor{link: ours, ended: make(chan struct{})}
	close(s.ended)
	require.Error(t, s.Serve(nil))
	p.Close()
	s.Leave()
}

func TestWhatIsSaidOverTheLinkIsBounded(t *testing.T) {
	ours, theirs, err := newLink()
	require.NoError(t, err)
	defer ours.close()
	go func() {
		_, _ = theirs.WriteString(strings.Repeat("x", 2*messageLimit))
		_ = theirs.Close()
	}()
	_, _, err = ours.receive()
	require.ErrorContains(t, err, "a message of more than")
}

// FuzzLink: whatever another process says, it is a message, an error or the end.
func FuzzLink(f *testing.F) {
	f.Add([]byte("{\"say\":\"ready\"}\n\n{\"say\":\"serve\"}\n"))
	f.Add([]byte("{\"say\":\"go\",\"files\":-1}\n"))
	f.Add([]byte("{\"say\":1}\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs, err := newLink()
		require.NoError(t, err)
		defer ours.close()
		go func() {
			_, _ = theirs.Write(said)
			_ = theirs.Close()
		}()
		for {
			m, files, err := ours.receive()
			if err != nil {
				return
			}
			require.Len(t, files, m.Files)
		}
	})
}
