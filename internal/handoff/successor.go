package handoff

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/child"
	"gateway/internal/failpoint"
)

const (
	// questionEnv carries the Question as JSON to a process that is asked whether it could take over. Its
	// end of the link is descriptor linkFD.
	questionEnv = "GATEWAY_HANDOVER_QUESTION"
	linkFD      = 3
	// dismissTime is how long a successor that is not needed has to end by itself.
	dismissTime = 200 * time.Millisecond
	// forwardTime is how long Forward waits for a successor that does not read.
	forwardTime = time.Second
	// tailLimit is how much of a successor's standard error is kept, in bytes.
	tailLimit = 2048
)

// Question is what a successor must know to say whether it could take over.
type Question struct {
	StateDir      string `json:"state_dir"`
	ListenAddress string `json:"listen_address"`
	// Activated reports whether the listener belongs to the supervisor, and stays.
	Activated bool `json:"activated,omitempty"`
	// Stay: once prepared, it stays and waits for Go. Otherwise only the answer is wanted.
	Stay bool `json:"stay,omitempty"`
	// Warn: it is also wanted what is valid but cannot work, which takes a look at the machine.
	Warn bool `json:"warn,omitempty"`
}

// Successor is another process of this program that has said that it is prepared to take over. Until Go it
// holds nothing of ours, so it may die or hang at no cost.
type Successor struct {
	// Version is the successor's.
	Version string
	// Warnings are those that it was asked for, each with what to try.
	Warnings []string
	PID      int

	link   *link
	ended  chan struct{} // closed when the process has ended and was waited for
	err    error         // how it ended; valid once ended is closed
	stderr *tail         // nil when it writes to our own
	kill   func()
	once   sync.Once
	gone   bool // Go has begun: the end of the link would mean that we are dead
}

// Spawn starts the executable beside this process and returns once it has said that it is prepared: that
// the file runs, is this program, and accepts the configuration on disk. The error says why it could not,
// for whoever asked for the restart. When ctx ends before that, the process is killed.
func Spawn(ctx context.Context, path string, argv []string, q Question) (*Successor, error) {
	about, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("handoff: preparing the successor: %w", err)
	}
	ours, theirs, err := newLink()
	if err != nil {
		return nil, err
	}
	s := &Successor{link: ours, ended: make(chan struct{})}
	cmd := exec.Command(path) //nolint:noctx // it may outlive ctx; kill ends it
	cmd.Args = argv
	cmd.Env = append(without(os.Environ(), handoverEnv, questionEnv, "WATCHDOG_PID"), questionEnv+"="+string(about))
	cmd.ExtraFiles = []*os.File{theirs} // becomes linkFD
	group := 0
	if q.Stay { // its output is ours from now on, and it stays in our process group: who kills all kills it too
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	} else {
		s.stderr = &tail{}
		cmd.Stderr = s.stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	cmd.WaitDelay = time.Second // a grandchild may hold its standard error
	err = child.Start(cmd)
	_ = theirs.Close()
	if err != nil {
		ours.close()
		return nil, fmt.Errorf("the successor cannot be started: %w", err)
	}
	s.PID = cmd.Process.Pid
	if group = s.PID; !q.Stay {
		group = -s.PID
	}
	s.kill = func() { _ = unix.Kill(group, unix.SIGKILL) }
	go func() {
		defer close(s.ended)
		s.err = child.Wait(cmd)
	}()
	failpoint.At("predecessor.asked")
	m, files, err := s.hear(ctx)
	drop(files...)
	switch {
	case err == nil && m.Say == sayPrepared:
		s.Version, s.Warnings = m.Version, m.Warnings
		failpoint.At("predecessor.prepared")
		return s, nil
	case ctx.Err() != nil:
		err = fmt.Errorf("the successor did not say that it is prepared: %w", context.Cause(ctx))
	case err == nil && m.Say == sayRefused:
		err = fmt.Errorf("the successor refuses to take over: %s", m.Error)
	default:
		err = s.early("prepared")
		if s.stderr != nil {
			s.Dismiss()
			err = fmt.Errorf("%w; is %s this program?%s", err, path, s.stderr.quote())
		}
	}
	s.Kill()
	return nil, err
}

// hear waits for the next message; when ctx ends it returns with an error.
func (s *Successor) hear(ctx context.Context) (message, []int, error) {
	stop := context.AfterFunc(ctx, s.link.wake)
	defer stop()
	return s.link.receive()
}

// early says that the successor ended, or closed its end of the link, before it had said something.
func (s *Successor) early(say string) error {
	select {
	case <-s.ended:
		if s.err != nil {
			return fmt.Errorf("the successor ended before it was %s: %w", say, s.err)
		}
		return fmt.Errorf("the successor ended before it was %s", say)
	case <-time.After(dismissTime):
		return fmt.Errorf("the successor let go of us before it was %s", say)
	}
}

// Go passes everything and waits until the successor is ready: it holds all, has opened the store, and serves nothing
// yet. When Go fails, or ctx ends, [Successor.Kill] undoes it: nothing was served, and the caller still has everything
// open.
func (s *Successor) Go(ctx context.Context, h Handover) error {
	doc, err := h.document(unix.F_DUPFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer doc.drop()
	f, err := doc.file()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.link.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s.gone = true
	files := slices.Concat([]int{int(f.Fd())}, doc.descriptors())
	if err := s.link.send(message{Say: sayGo}, files...); err != nil {
		return fmt.Errorf("the successor does not take over: %w", err)
	}
	failpoint.At("predecessor.gone")
	m, files, err := s.hear(ctx)
	drop(files...)
	switch {
	case err == nil && m.Say == sayReady:
		failpoint.At("predecessor.ready")
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && m.Say == sayFailed:
		return fmt.Errorf("the successor could not start: %s", m.Error)
	default:
		return s.early("ready")
	}
}

// Serve is the point of no return: from here on all belongs to the successor. An error says that it was
// gone already, and nothing has changed.
func (s *Successor) Serve() error {
	if err := s.link.send(message{Say: sayServe}); err != nil {
		return errors.Join(s.early("told to serve"), err)
	}
	failpoint.At("predecessor.serve")
	return nil
}

// Forward hands over further connections, after Serve.
func (s *Successor) Forward(conns []Carried) error {
	doc, err := (&Handover{Conns: conns}).document(unix.F_DUPFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer doc.drop()
	f, err := doc.file()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_ = s.link.c.SetWriteDeadline(time.Now().Add(forwardTime))
	return s.link.send(message{Say: sayMore}, slices.Concat([]int{int(f.Fd())}, doc.descriptors())...)
}

// Leave ends the conversation after Serve: the successor goes on alone.
func (s *Successor) Leave() { s.once.Do(s.link.close) }

// Dismiss ends a successor that is not needed and waits until it is gone. One that holds nothing yet may end
// by itself.
func (s *Successor) Dismiss() {
	if !s.gone {
		s.Leave()
		select {
		case <-s.ended:
		case <-time.After(dismissTime):
		}
	}
	s.Kill()
}

// Kill ends the successor and waits until it is gone, whatever it does. The link stays open meanwhile: its
// end would tell the successor that it is alone now.
func (s *Successor) Kill() {
	select {
	case <-s.ended: // its number may be another's by now
	default:
		s.kill()
		<-s.ended
	}
	s.Leave()
}

// Prepare asks the executable whether it could take over, and ends it again.
func Prepare(ctx context.Context, path string, argv []string, q Question) (version string, warnings []string, err error) {
	q.Stay = false
	s, err := Spawn(ctx, path, argv, q)
	if err != nil {
		return "", nil, err
	}
	s.Dismiss()
	return s.Version, s.Warnings, nil
}

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if over := t.buf.Len() - tailLimit; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.TrimSpace(t.buf.String())
	if s == "" {
		return ""
	}
	return "\n" + s
}

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
