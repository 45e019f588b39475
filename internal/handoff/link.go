package handoff

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The messages between a gateway and its successor, in this order. When one of the two processes dies, the other reads
// the end of the link.
const (
	sayPrepared = "prepared" // from the successor: it runs, it is this program, it accepts the configuration on disk
	sayRefused  = "refused"  // from the successor: it cannot take over, and why
	sayGo       = "go"       // from the predecessor: all is closed; the lock, the listeners and the connections
	sayReady    = "ready"    // from the successor: the store is open and recovered; it waits for serve
	sayFailed   = "failed"   // from the successor: it could not start, and why
	sayServe    = "serve"    // from the predecessor: the successor serves. The point of no return
	sayMore     = "more"     // from the predecessor: connections whose answers have just ended there
)

const (
	// messageLimit bounds one message, in bytes.
	messageLimit = 64 << 10
	// filesAtOnce is how many descriptors go with one write; the system takes 253.
	filesAtOnce = 200
	// filesLimit bounds the descriptors of one message.
	filesLimit = 1 << 20
)

// message is one line of JSON. Its descriptors travel beside the bytes: the first with the line itself, the
// others each with an empty line behind it.
type message struct {
	Say      string   `json:"say"`
	Version  string   `json:"version,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`
	Files    int      `json:"files,omitempty"`
	// Hop is the last one of the predecessor; it goes with the word to serve, and is opaque to this package.
	Hop json.RawMessage `json:"hop,omitempty"`
}

// link is one end of a pair of connected sockets. One goroutine may send while another receives.
type link struct {
	c     *net.UnixConn
	read  []byte // received, and not yet a whole line
	files []int  // received, and not yet part of a message
}

// newLink returns one end, and the other as a file for a child.
func newLink() (ours *link, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("handoff: link to the successor: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "successor's end")
	if ours, err = openLink(fds[0]); err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// openLink makes a link of a descriptor, which then belongs to the link.
func openLink(fd int) (*link, error) {
	f := os.NewFile(uintptr(fd), "link")
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("handoff: link between gateways: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("handoff: link between gateways: a %T", c)
	}
	return &link{c: u}, nil
}

func (l *link) send(m message, files ...int) error {
	m.Files = len(files)
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("handoff: sending %s: %w", m.Say, err)
	}
	line = append(line, '\n')
	for {
		now := files[:min(len(files), filesAtOnce)]
		var rights []byte
		if len(now) > 0 {
			rights = unix.UnixRights(now...)
		}
		n, _, err := l.c.WriteMsgUnix(line, rights, nil)
		if err == nil && n < len(line) { // the descriptors went with the first byte
			_, err = l.c.Write(line[n:])
		}
		if err != nil {
			return fmt.Errorf("handoff: sending %s: %w", m.Say, err)
		}
		if files = files[len(now):]; len(files) == 0 {
			return nil
		}
		line = []byte{'\n'}
	}
}

// receive returns the next message and its descriptors, which are close-on-exec. It returns io.EOF when the other
// process has closed its end, or died.
func (l *link) receive() (m message, files []int, err error) {
	for known := false; ; {
		if line, rest, whole := bytes.Cut(l.read, []byte{'\n'}); !known && whole {
			l.read = slices.Clone(rest)
			if len(line) == 0 {
				continue
			}
			if err := json.Unmarshal(line, &m); err != nil {
				return m, nil, fmt.Errorf("handoff: link between gateways: %w", err)
			}
			if m.Files < 0 || m.Files > filesLimit {
				return m, nil, fmt.Errorf("handoff: link between gateways: %d descriptors announced", m.Files)
			}
			known = true
		}
		if known && len(l.files) >= m.Files {
			files, l.files = l.files[:m.Files:m.Files], l.files[m.Files:]
			return m, files, nil
		}
		if len(l.read) > messageLimit {
			return m, nil, fmt.Errorf("handoff: link between gateways: a message of more than %d bytes", messageLimit)
		}
		if err := l.more(); err != nil {
			return m, nil, err
		}
	}
}

func (l *link) more() error {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(filesAtOnce*4))
	n, oobn, flags, _, err := l.c.ReadMsgUnix(buf, oob)
	l.read = append(l.read, buf[:max(n, 0)]...)
	if oobn > 0 {
		controls, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return fmt.Errorf("handoff: link between gateways: %w", err)
		}
		for _, c := range controls {
			if fds, err := unix.ParseUnixRights(&c); err == nil {
				l.files = append(l.files, fds...)
			}
		}
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return errors.New("handoff: link between gateways: descriptors are missing. Try: a higher limit of open files")
	case n > 0 || oobn > 0:
		return nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
		return io.EOF
	}
	return fmt.Errorf("handoff: link between gateways: %w", err)
}

// wake makes a waiting receive return with a time-out, and every later one.
func (l *link) wake() { _ = l.c.SetReadDeadline(time.Unix(1, 0)) }

// close closes this end, and the descriptors that came over it and belong to no message.
func (l *link) close() {
	drop(l.files...)
	l.files = nil
	_ = l.c.Close()
}
