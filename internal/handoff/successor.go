package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/child"
	"gateway/internal/failpoint"
	"gateway/server/carry"
)

const (
	// questionEnv carries the Question as JSON to a process that is asked whether it could take over. The process's
	// end of the link is descriptor linkFD.
	questionEnv = "GATEWAY_HANDOVER_QUESTION"
	linkFD      = 3
	// dismissTime is how long a successor that is not needed has until it is killed.
	dismissTime = 200 * time.Millisecond
	// forwardTime is how long Forward waits for a successor that does not read.
	forwardTime = time.Second
	// tailLimit is how much of a successor's standard error is kept, in bytes.
	tailLimit = 2048
)

// Question is what a successor must know to answer whether it could take over.
type Question struct {
	StateDir      string `json:"state_dir"`
	ListenAddress string `json:"listen_address"`
	// Activated reports whether the listener belongs to the supervisor, and stays open whoever serves.
	Activated bool `json:"activated,omitempty"`
	// Stay: once prepared, the successor stays and waits for Go. Otherwise it ends after its answer.
	Stay bool `json:"stay,omitempty"`
	// Warn: the answer includes warnings about what is valid but cannot work on this machine.
	Warn bool `json:"warn,omitempty"`
}

// Successor is another process of this program that is prepared to take over. Until Go it holds nothing of this
// process, so its death costs nothing. [Spawn] makes one.
type Successor struct {
	// Version is the successor's.
	Version string
	// Warnings are the answer to Question.Warn, each with what to try.
	Warnings []string
	PID      int

	link   *link
	ended  chan struct{} // closed when the process has ended and was waited for
	err    error         // how it ended; valid once ended is closed
	stderr *child.Tail   // nil when it shares that of this process
	kill   func()
	once   sync.Once
	gone   bool // Go has begun: to the successor, the end of the link would mean that this process is dead
}

// Spawn starts the executable beside this process and returns once it is prepared: the file runs, is this program, and
// accepts the configuration on disk. Otherwise the error is the reason, for whoever asked for the restart. When ctx ends
// first, the process is killed.
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
	if q.Stay { // it shares the output of this process, and its process group: whoever kills the group kills both
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	} else {
		s.stderr = &child.Tail{Limit: tailLimit}
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
		err = fmt.Errorf("the successor was not prepared: %w", context.Cause(ctx))
	case err == nil && m.Say == sayRefused:
		err = fmt.Errorf("the successor refuses to take over: %s", m.Error)
	default:
		err = s.early("prepared")
		if s.stderr != nil {
			s.Dismiss()
			err = fmt.Errorf("%w; is %s this program?", err, path)
			if text := strings.TrimSpace(s.stderr.String()); text != "" {
				err = fmt.Errorf("%w\n%s", err, text)
			}
		}
	}
	s.Kill()
	return nil, err
}

// hear waits for the next message. It returns an error when ctx ends first.
func (s *Successor) hear(ctx context.Context) (message, []int, error) {
	stop := context.AfterFunc(ctx, s.link.wake)
	defer stop()
	return s.link.receive()
}

// early is the error of a successor that ended, or closed its end of the link, before it was as far as stage.
func (s *Successor) early(stage string) error {
	select {
	case <-s.ended:
		if s.err != nil {
			return fmt.Errorf("the successor ended before it was %s: %w", stage, s.err)
		}
		return fmt.Errorf("the successor ended before it was %s", stage)
	case <-time.After(dismissTime):
		return fmt.Errorf("the successor closed its end of the link before it was %s", stage)
	}
}

// Go passes everything and waits until the successor is ready: it holds all, has opened the store, and serves nothing
// yet. When Go fails, or ctx ends, [Successor.Kill] undoes it: nothing was served, and the caller still has everything
// open.
func (s *Successor) Go(ctx context.Context, h Handover) error {
	p, err := h.pack(unix.F_DUPFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer p.drop()
	stop := context.AfterFunc(ctx, func() { _ = s.link.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s.gone = true
	if err := s.link.send(message{Say: sayGo}, p.descriptors()...); err != nil {
		return fmt.Errorf("the hand-over could not be sent to the successor: %w", err)
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

// Serve is the point of no return: from here on everything belongs to the successor, which gets the last
// hop of this process. An error means that the successor
// had ended, and nothing has changed.
func (s *Successor) Serve(last json.RawMessage) error {
	if err := s.link.send(message{Say: sayServe, Hop: last}); err != nil {
		return errors.Join(s.early("told to serve"), err)
	}
	failpoint.At("predecessor.serve")
	return nil
}

// Forward passes more connections, after Serve. On an error the successor has none of them.
func (s *Successor) Forward(conns []carry.Connection) error {
	p, err := (&Handover{Conns: conns}).pack(unix.F_DUPFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer p.drop()
	_ = s.link.c.SetWriteDeadline(time.Now().Add(forwardTime))
	return s.link.send(message{Say: sayMore}, p.descriptors()...)
}

// Leave closes the link after Serve: the successor goes on alone.
func (s *Successor) Leave() { s.once.Do(s.link.close) }

// Dismiss ends a successor that is not needed and waits for its end. Before Go it may end by itself.
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

// Kill kills the successor and waits for its end. The link stays open meanwhile: at the end of the link, the successor
// would serve alone.
func (s *Successor) Kill() {
	select {
	case <-s.ended: // another process may have its number by now
	default:
		s.kill()
		<-s.ended
	}
	s.Leave()
}

// Prepare asks the executable whether it could take over, and ends the process that answers.
func Prepare(ctx context.Context, path string, argv []string, q Question) (version string, warnings []string, err error) {
	q.Stay = false
	s, err := Spawn(ctx, path, argv, q)
	if err != nil {
		return "", nil, err
	}
	s.Dismiss()
	return s.Version, s.Warnings, nil
}
