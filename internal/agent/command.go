package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"gateway/internal/child"
	"gateway/queue"
)

const (
	// inputArgument is what an argument may say to get the input in its place.
	inputArgument = "{input}"
	// killGrace is how long a process group has between SIGTERM and SIGKILL when its attempt has ended for a reason of
	// the agent's own, such as its timeout. Otherwise it has what the queue leaves, but for killReserve, and at least four
	// fifths of it: a cancelled turn 2 s, one that is interrupted at the end of the gateway most of shutdown_timeout.
	killGrace   = 2 * time.Second
	killReserve = 500 * time.Millisecond
	// pipeGrace is how long output may still come after the program has ended: a child of it that left its
	// process group may hold the pipe open.
	pipeGrace = time.Second
	// stderrTail is how much of standard error goes into the failure or the log, in bytes.
	stderrTail = 2 << 10
)

// EndLeftovers knows the programs of a turn by these variables, and gateway restart the turn that asks.
const (
	stateDirVariable = "GATEWAY_STATE_DIR="
	turnVariable     = "GATEWAY_TURN_ID="
)

// private are the beginnings of the variables that are the gateway's own: its settings and secrets, and what
// its supervisor told it.
var private = []string{"GATEWAY_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES="}

// command runs a program for each turn, in a process group of its own. It inherits no descriptor but the
// standard three: everything that the gateway opens is close-on-exec, the instance lock above all.
type command struct {
	argv     []string
	dir      string
	env      map[string]string
	stateDir string
	log      zerolog.Logger
}

func (c *command) run(ctx context.Context, w queue.Work) error {
	// The death signal is bound to the thread that started the child, so that thread has to live as long
	// (golang/go#27505).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd, takesInput := c.build(w)
	if !takesInput {
		input := w.Turn.Input
		if !strings.HasSuffix(input, "\n") {
			input += "\n" // programs that read lines, such as bc, want the last one ended
		}
		cmd.Stdin = strings.NewReader(input)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	out := &textWriter{emit: w.Emit}
	stderr := &child.Tail{Limit: stderrTail}
	pipe, err := newOutput(out)
	if err != nil {
		return fmt.Errorf("starting %s: %w. Try: see whether too many files are open", c.argv[0], err)
	}
	cmd.Stdout, cmd.Stderr = pipe.w, stderr
	if err := child.Start(cmd); err != nil {
		pipe.drop()
		return fmt.Errorf("starting %s: %w. Try: check the command and its path", c.argv[0], err)
	}
	pipe.begin()
	group := cmd.Process.Pid
	ended := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		killGroup(ctx, group, ended)
	}()
	err = child.Wait(cmd)
	pipe.wait()
	close(ended)
	<-killed
	c.report(w.Turn, stderr.String(), err != nil && ctx.Err() == nil)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case out.err != nil:
		return out.err
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // which is about standard error, or input that nobody read
		return failure(c.argv[0], err, stderr.String())
	}
	return out.finish()
}

// report logs what the program wrote to standard error, of a failure the last line: the error has the rest.
func (c *command) report(t queue.Turn, stderr string, failed bool) {
	stderr = strings.TrimSpace(stderr)
	if stderr == "" {
		return
	}
	level := zerolog.InfoLevel
	if failed {
		level = zerolog.WarnLevel
		stderr = stderr[strings.LastIndexByte(stderr, '\n')+1:]
	}
	c.log.WithLevel(level).Str("turn", t.ID).Str("agent", t.Agent).Int("run", t.Runs).Str("stderr", stderr).Msg("the agent wrote to standard error")
}

func (c *command) build(w queue.Work) (cmd *exec.Cmd, takesInput bool) {
	args := make([]string, len(c.argv))
	for i, a := range c.argv {
		args[i] = a
		if i > 0 && strings.Contains(a, inputArgument) {
			args[i], takesInput = strings.ReplaceAll(a, inputArgument, w.Turn.Input), true
		}
	}
	cmd = exec.Command(args[0], args[1:]...) //nolint:noctx // killGroup ends the whole group with the context
	cmd.Dir = c.dir
	cmd.Env = c.environment(w.Turn)
	cmd.SysProcAttr = processAttributes()
	cmd.WaitDelay = pipeGrace
	return cmd, takesInput
}

// environment is the gateway's own without its settings and secrets, what the turn is, and where the gateway
// is found by the commands that talk to it.
func (c *command) environment(t queue.Turn) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !slices.ContainsFunc(private, func(head string) bool { return strings.HasPrefix(kv, head) }) {
			env = append(env, kv)
		}
	}
	for k, v := range c.env {
		env = append(env, k+"="+v)
	}
	return append(env,
		stateDirVariable+c.stateDir,
		turnVariable+t.ID, "GATEWAY_TURN_ATTEMPT="+strconv.Itoa(t.Attempt), "GATEWAY_TURN_RUN="+strconv.Itoa(t.Runs),
		"GATEWAY_SESSION="+t.Session, "GATEWAY_LANE="+t.Lane,
	)
}

// killGroup ends the process group with the context, politely first; and what is left of it once the
// program itself has ended.
func killGroup(ctx context.Context, group int, ended <-chan struct{}) {
	select {
	case <-ended:
	case <-ctx.Done():
		_ = unix.Kill(-group, unix.SIGTERM)
		grace := time.NewTimer(graceOf(ctx))
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			_ = unix.Kill(-group, unix.SIGKILL)
			<-ended
		}
	}
	_ = unix.Kill(-group, unix.SIGKILL)
}

// graceOf is how long a process group has to end by itself.
func graceOf(ctx context.Context) time.Duration {
	left, ok := queue.Grace(ctx)
	if !ok {
		return killGrace
	}
	return left - min(killReserve, left/5)
}

// tempFail is EX_TEMPFAIL of sysexits.h: what could not be done now may be done later.
const tempFail = 75

func failure(program string, err error, stderr string) error {
	what, later := err.Error(), false
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		what, later = fmt.Sprintf("exit code %d", exit.ExitCode()), exit.ExitCode() == tempFail
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			what = "ended by " + unix.SignalName(status.Signal())
		}
	}
	failed := fmt.Errorf("%s: %s", program, what)
	if stderr = strings.TrimSpace(stderr); stderr != "" {
		failed = fmt.Errorf("%w: %s", failed, stderr)
	}
	if later {
		return queue.Temporary(failed, 0)
	}
	return failed
}
