package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// prepareEnv asks a new image to say whether it could take over, and to do nothing else. Its value is
	// the descriptor for the answer.
	prepareEnv = "GATEWAY_HANDOVER_PREPARE"
	// successorEnv carries the Predecessor as JSON.
	predecessorEnv = "GATEWAY_HANDOVER_PREDECESSOR"
	// answerLimit bounds the answer and what is kept of standard error, in bytes.
	answerLimit = 64 << 10
)

// Predecessor is what a candidate must know to say whether it could take over.
type Predecessor struct {
	StateDir      string `json:"state_dir"`
	ListenAddress string `json:"listen_address"`
}

// answer is what a candidate says.
type answer struct {
	Prepared bool   `json:"prepared"`
	Version  string `json:"version,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Prepare starts the executable beside this process in order to ask whether it could take over: that the
// file runs, is this program, and accepts the configuration on disk. It touches nothing and ends. The
// error says why it could not, for whoever asked for the restart. version is the candidate's.
func Prepare(ctx context.Context, path string, argv []string, p Predecessor) (version string, err error) {
	about, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("process: preparing the successor: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("process: preparing the successor: %w", err)
	}
	defer func() { _ = r.Close() }()
	var stderr tail
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = argv
	cmd.Env = append(without(without(os.Environ(), handoverEnv), prepareEnv), prepareEnv+"=3", predecessorEnv+"="+string(about))
	cmd.ExtraFiles = []*os.File{w} // becomes descriptor 3
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return "", fmt.Errorf("the successor cannot be started: %w", err)
	}
	// A candidate that hangs is killed when ctx ends, which closes its end of the pipe.
	said := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, answerLimit))
		said <- b
	}()
	waitErr := cmd.Wait()
	_ = r.SetReadDeadline(time.Now().Add(time.Second)) // a grandchild may hold the pipe open
	var a answer
	jsonErr := json.Unmarshal(<-said, &a)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("the successor did not say that it is prepared: %w", context.Cause(ctx))
	case jsonErr == nil && a.Error != "":
		return "", fmt.Errorf("the successor refuses to take over: %s", a.Error)
	case waitErr != nil:
		return "", fmt.Errorf("the successor ended before it was prepared: %w%s", waitErr, stderr.quote())
	case jsonErr != nil || !a.Prepared:
		return "", fmt.Errorf("the successor ended without saying that it is prepared; is %s this program?%s", path, stderr.quote())
	}
	return a.Version, nil
}

// Asked reports whether this process was started by Prepare, and by whom.
func Asked() (p Predecessor, reply func(version string, err error) error, ok bool) {
	value, ok := os.LookupEnv(prepareEnv)
	if !ok {
		return Predecessor{}, nil, false
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return Predecessor{}, nil, false
	}
	unix.CloseOnExec(fd)
	reply = func(version string, err error) error {
		a := answer{Prepared: err == nil, Version: version}
		if err != nil {
			a.Error = err.Error()
		}
		f := os.NewFile(uintptr(fd), "answer")
		return errors.Join(json.NewEncoder(f).Encode(a), f.Close())
	}
	if err := json.Unmarshal([]byte(os.Getenv(predecessorEnv)), &p); err != nil {
		return p, func(string, error) error { return reply("", fmt.Errorf("the predecessor cannot be read: %w", err)) }, true
	}
	return p, reply, true
}

// tail keeps the last bytes written to it.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - 2048; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) quote() string {
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
