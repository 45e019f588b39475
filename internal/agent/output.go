package agent

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxPipe is how many bytes a pipe can hold, unless somebody raised fs.pipe-max-size.
const maxPipe = 1 << 20

// output reads what a program writes. Whatever it had written when it ended is read, however long the reader is held
// up: by a disk that is full, or because this process is stopped. [exec.Cmd] with a WaitDelay would drop it.
type output struct {
	r, w *os.File
	to   io.Writer
	done chan struct{} // closed once nothing more is read
}

// newOutput makes a pipe; w is for the program. Either begin or drop must follow.
func newOutput(to io.Writer) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &output{r: r, w: w, to: to, done: make(chan struct{})}, nil
}

// drop is for a program that was not started.
func (o *output) drop() {
	_ = o.w.Close()
	_ = o.r.Close()
}

// begin reads from a program that was started. wait must follow.
func (o *output) begin() {
	_ = o.w.Close()
	go func() {
		defer close(o.done)
		_, err := io.Copy(o.to, o.r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.rest()
		}
		_ = o.r.Close() // a program that still writes learns that nobody reads
	}()
}

// wait returns once all is read. The program has ended; one that it left behind may hold the pipe open, and has
// pipeGrace for what it still says.
func (o *output) wait() {
	_ = o.r.SetReadDeadline(time.Now().Add(pipeGrace))
	<-o.done
}

// rest reads what is in the pipe without waiting for more.
func (o *output) rest() {
	raw, err := o.r.SyscallConn()
	if err != nil || o.r.SetReadDeadline(time.Time{}) != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for left := maxPipe; left > 0; {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.Read(int(fd), buf)
			return true
		})
		if errors.Is(failed, unix.EINTR) {
			continue
		}
		if err != nil || failed != nil || n <= 0 {
			return
		}
		if _, err := o.to.Write(buf[:n]); err != nil {
			return
		}
		left -= n
	}
}
