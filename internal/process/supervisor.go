package process

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// flushTime is how long Flush waits for a supervisor that does not read.
const flushTime = time.Second

// supervisorBuffer is how many messages may wait for a supervisor that does not read.
const supervisorBuffer = 64

// Supervisor is systemd, or another program with its notification protocol. Messages are best effort and never delay the
// caller. Without a supervisor every method does nothing. [NewSupervisor] makes one.
type Supervisor struct {
	// Watchdog is how long the supervisor waits for a sign of life before it acts; 0 for ever.
	Watchdog time.Duration

	messages chan string
	ended    chan struct{}
	once     sync.Once
}

// NewSupervisor looks for a supervisor in the environment: NOTIFY_SOCKET and WATCHDOG_USEC. Both stay there for the image
// that may replace this one.
func NewSupervisor() *Supervisor {
	s := &Supervisor{messages: make(chan string, supervisorBuffer), ended: make(chan struct{})}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		close(s.ended)
		s.messages = nil
		return s
	}
	if every, err := daemon.SdWatchdogEnabled(false); err == nil {
		s.Watchdog = every
	}
	messages := s.messages
	go func() {
		defer close(s.ended)
		for m := range messages {
			_, _ = daemon.SdNotify(false, m)
		}
	}()
	return s
}

// Present reports whether there is a supervisor that listens.
func (s *Supervisor) Present() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Notify sends assignments such as READY=1, all in one message.
func (s *Supervisor) Notify(assignments ...string) {
	if s.messages == nil {
		return
	}
	select {
	case s.messages <- strings.Join(assignments, "\n"):
	default: // it does not read; the next message is newer than the lost one
	}
}

// Flush sends the messages that wait, for at most a second. Later messages are not sent.
func (s *Supervisor) Flush() {
	s.once.Do(func() {
		if s.messages != nil {
			close(s.messages)
			s.messages = nil
			select {
			case <-s.ended:
			case <-time.After(flushTime): // it does not read
			}
		}
	})
}

// Reloading is the message that a reload has begun, with the time by the clock that systemd expects.
func Reloading() []string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil
	}
	return []string{daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000)}
}

// Activated returns the TCP listener that a supervisor opened for this process; nil when there is none.
// The environment no longer names it, so that no child takes it for its own.
func Activated() (net.Listener, error) {
	var found net.Listener
	for _, f := range activation.Files(true) {
		ln, err := net.FileListener(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("process: a listener of the supervisor cannot be used: %w", err)
		}
		if _, tcp := ln.(*net.TCPListener); !tcp || found != nil {
			_ = ln.Close()
			continue
		}
		found = ln
	}
	return found, nil
}
