package handoff

import (
	"bytes"
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
	lock, err := statedir.Adopt(doc.StateDir, doc.LockFile())
	if err != nil {
		os.Exit(5)
	}
	if err := p.Ready(context.Background()); err != nil {
		os.Exit(4)
	}
	die("told")
	if err := lock.Claim(); err != nil {
		os.Exit(3)
	}
	answer := func(conns []HeldConn) {
		for _, held := range conns {
			f := os.NewFile(uintptr(held.FD), "held")
			_, _ = fmt.Fprintf(f, "%s, answered by %s\n", held.Read, role)
			_ = f.Close()
		}
	}
	answer(doc.Conns)
	p.Forwarded(answer)
	_ = lock.Release()
}

// pairs returns n connections: our ends, and what is handed over of the others.
func pairs(t *testing.T, n int, read string) (ours []net.Conn, held []HeldConn) {
	t.Helper()
	for i := range n {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		require.NoError(t, err)
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
		f := os.NewFile(uintptr(fds[0]), "ours")
		c, err := net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		t.Cleanup(func() { _ = c.Close() })
		ours = append(ours, c)
		held = append(held, HeldConn{FD: fds[1], Read: fmt.Appendf(nil, "%s %d", read, i)})
	}
	return ours, held
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
	fd, err := Duplicate(lock)
	require.NoError(t, err)
	ours, held := pairs(t, 450, "request") // more than go with one write
	return s, lock, Handover{BootID: "one", StateDir: dir, Lock: fd, Listener: -1, Socket: -1, Conns: held}, ours
}

func TestASuccessorTakesOverTheLockAndEveryConnection(t *testing.T) {
	s, lock, doc, ours := spawn(t, "takes over")
	require.NoError(t, s.Go(t.Context(), doc))
	Drop(doc.descriptors()...)
	require.NoError(t, s.Serve())
	require.NoError(t, lock.Leave())
	_, err := statedir.Acquire(doc.StateDir)
	require.Error(t, err, "the successor has it")
	late, held := pairs(t, 3, "late")
	require.NoError(t, s.Forward(held))
	for _, h := range held {
		Drop(h.FD)
	}
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
			held := doc.Conns[7] // still ours, and nothing was read from it or said to it
			_, err = unix.Write(held.FD, []byte("answered here"))
			require.NoError(t, err)
			Drop(doc.descriptors()...)
			b, err := io.ReadAll(ours[7])
			require.NoError(t, err)
			require.Equal(t, "answered here", string(b))
			require.NoError(t, lock.Claim())
			require.NoError(t, lock.Release())
		})
	}
}

func TestASuccessorThatIsNotNeededEndsByItself(t *testing.T) {
	s, lock, doc, _ := spawn(t, "takes over")
	Drop(doc.descriptors()...)
	s.Dismiss()
	require.NoError(t, s.err, "it was not killed")
	require.NoError(t, lock.Release())
}

func TestASuccessorGoesOnWhenThePredecessorDies(t *testing.T) {
	s, lock, doc, ours := spawn(t, "takes over")
	require.NoError(t, s.Go(t.Context(), doc))
	Drop(doc.descriptors()...)
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
	require.ErrorContains(t, p.Ready(ctx), "too late")
	s := &Successor{link: ours, ended: make(chan struct{})}
	close(s.ended)
	require.Error(t, s.Serve())
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

// What 10,000 clients have said may come to more than 64 MiB, and must not keep a gateway from being restarted.
func TestAHandoverTakesAllThatClientsMayHaveSaid(t *testing.T) {
	doc := Handover{BootID: "b", Lock: -1, Listener: -1, Socket: -1, History: json.RawMessage("[]")}
	for range 10 {
		doc.Conns = append(doc.Conns, HeldConn{FD: -1, Read: bytes.Repeat([]byte("x"), 8<<20)})
	}
	f, err := doc.file()
	require.NoError(t, err)
	got, err := readHandover(f)
	require.NoError(t, err)
	require.Len(t, got.Conns, 10)
	require.Len(t, got.Conns[9].Read, 8<<20)
}
