package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What the chaos does. The numbers are how often, out of all of them.
var deeds = []struct {
	name  string
	share int
	do    func(*chaos, context.Context)
}{
	{"restart asked for", 40, (*chaos).askRestart},
	{"SIGKILL", 25, func(c *chaos, _ context.Context) { c.signal(syscall.SIGKILL) }},
	{"SIGSTOP, later SIGCONT", 20, (*chaos).freeze},
	{"SIGTERM", 5, func(c *chaos, _ context.Context) { c.signal(syscall.SIGTERM) }},
	{"disk full for a while", 10, (*chaos).fillDisk},
}

const (
	// calmest and wildest bound the time between two deeds. The shortest is shorter than a restart.
	wildest, calmest = 5 * time.Millisecond, 500 * time.Millisecond
	// shortest and longest bound how long a process is stopped, or the disk full. The longest is longer than the
	// deadlines that are configured.
	shortest, longest = 10 * time.Millisecond, 2500 * time.Millisecond
	// steadyTime is longer than a signal takes to be taken, and than each deadline that is configured.
	steadyTime = 2 * time.Second
	chaosDisk  = 1 << 30 // bytes
	fillTries  = 3       // with a piece of each size
)

// chaos is a gateway with a supervisor, and everything that can happen to it.
type chaos struct {
	*gateway
	disk    string // where a disk of its own is mounted; empty when there is none
	done    map[string]int
	starts  int // by the supervisor
	inquiry sync.WaitGroup
}

// runChaos has clients send turns for as long as it is told while everything happens to the gateway, and judges what
// became of the turns that were acknowledged.
func runChaos(ctx context.Context, mode, dir string, built []string, lasts time.Duration, clients int) (r *slice, err error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	g := &gateway{mode: mode, dir: dir, built: built, drain: time.Second, listen: address, more: `turns: { max_attempts: 1000, retry_backoff: 10ms, max_queued_per_session: 100000 }
agents: { short: { type: command, command: [sh, -c, "sleep 0.03; cat"] } }
`, timeouts: "shutdown_timeout: 1s, respawn_timeout: 1500ms, "}
	c := &chaos{gateway: g, done: make(map[string]int)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.mount(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "the disk will not be full: %v\n", err)
	}
	defer c.unmount()
	if _, err := g.start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, g.stop())
	}()
	seen := newTally()
	load, enough := context.WithCancel(ctx)
	defer enough()
	var senders sync.WaitGroup
	for _, kind := range turnKinds {
		for i := range clients {
			for _, agent := range []string{"echo", "short"} {
				s := &client{address: address, agent: agent, rest: rest, name: fmt.Sprintf("%s-%s%d", kind, agent, i), t: seen}
				senders.Go(func() { kinds[kind](s, load) })
			}
		}
	}
	supervised, stopSupervisor := context.WithCancel(ctx)
	var supervisor sync.WaitGroup
	supervisor.Go(func() { c.supervise(supervised) })
	rage, calm := context.WithTimeout(ctx, lasts)
	c.rage(rage)
	calm()
	c.inquiry.Wait()
	// Peace: it has to come back, whatever was done to it, and then to go on by itself.
	peace, err := c.steady(ctx)
	enough()
	senders.Wait()
	if err == nil {
		err = g.judge(ctx, seen)
	}
	if err == nil {
		err = g.still(ctx, peace)
	}
	stopSupervisor()
	supervisor.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil { // the worst that can happen, and the page must say so
		seen.lose(notFound, fmt.Sprintf("%v; the end of its log: %s", err, c.lastWords()))
	}
	return newSlice(mode, lasts, c, seen), nil
}

// steady returns once the gateway has run for steadyTime without another start: a signal that was sent to a process
// which was stopped is taken late.
func (c *chaos) steady(ctx context.Context) (s status, err error) {
	since := time.Now()
	err = eventually(ctx, "the gateway runs, and goes on", func() bool {
		now, err := c.status(ctx)
		if err != nil || now.State != "Running" || now != s {
			s, since = now, time.Now()
			return false
		}
		return time.Since(since) >= steadyTime
	})
	return s, err
}

// still says when the gateway is another than it was, though nothing was done to it.
func (g *gateway) still(ctx context.Context, was status) error {
	now, err := g.status(ctx)
	if err == nil && now != was {
		err = fmt.Errorf("it did not go on by itself: it was %+v and is %+v", was, now)
	}
	return err
}

// lastWords is the end of the gateway's log.
func (c *chaos) lastWords() string {
	text, err := os.ReadFile(c.executable() + ".log")
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}

// rage does one thing after the other until ctx ends. What takes a while goes on beside the next.
func (c *chaos) rage(ctx context.Context) {
	all := 0
	for _, d := range deeds {
		all += d.share
	}
	for ctx.Err() == nil {
		n := rand.N(all)
		for _, d := range deeds {
			if n -= d.share; n < 0 {
				c.done[d.name]++
				d.do(c, ctx)
				break
			}
		}
		pause(ctx, between(wildest, calmest))
	}
}

func between(least, most time.Duration) time.Duration { return least + rand.N(most-least) }

// supervise starts the gateway whenever there is none, as a supervisor does.
func (c *chaos) supervise(ctx context.Context) {
	for ctx.Err() == nil {
		if len(c.pids()) == 0 {
			c.starts++
			if p, err := launch(c.dir, nil, c.executable(), "run", "--config", "gateway.yaml"); err == nil {
				c.p = p
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// askRestart asks by SIGHUP or SIGUSR1, with another configuration, and every other time with another binary.
func (c *chaos) askRestart(context.Context) {
	c.round++
	if errors.Join(c.configure(), c.install()) == nil {
		c.signal([]syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1}[c.round%2])
	}
}

// signal sends it to any process of the gateway: the one that serves, the one that is asked whether it could, or one
// that leaves.
func (c *chaos) signal(s syscall.Signal) {
	if pids := c.pids(); len(pids) > 0 {
		_ = syscall.Kill(pids[rand.N(len(pids))], s)
	}
}

// freeze stops a process, and later lets it go on.
func (c *chaos) freeze(ctx context.Context) {
	pids := c.pids()
	if len(pids) == 0 {
		return
	}
	pid := pids[rand.N(len(pids))]
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	c.inquiry.Go(func() {
		pause(ctx, between(shortest, longest))
		_ = syscall.Kill(pid, syscall.SIGCONT)
	})
}

// fillDisk leaves no room in the state folder for a while.
func (c *chaos) fillDisk(ctx context.Context) {
	if c.disk == "" {
		return
	}
	path := filepath.Join(c.disk, fmt.Sprintf("filler-%d", c.done["disk full for a while"]))
	end := 0
	for size := chaosDisk; size >= 4<<10; size /= 2 {
		// Not until there is no more: room that somebody makes meanwhile would be filled by the smallest piece, for minutes.
		for range fillTries {
			if exec.CommandContext(ctx, "fallocate", "-o", strconv.Itoa(end), "-l", strconv.Itoa(size), path).Run() != nil {
				break
			}
			end += size
		}
	}
	c.inquiry.Go(func() {
		pause(ctx, between(shortest, longest))
		_ = os.Remove(path)
	})
}

// mount gives the state folder a disk of its own, so that it can be full. Only root can.
func (c *chaos) mount(ctx context.Context) error {
	image, at := filepath.Join(c.dir, "disk"), filepath.Join(c.dir, "state")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(chaosDisk), f.Close(), os.MkdirAll(at, 0o700)); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w %s", argv[0], err, strings.TrimSpace(string(out)))
		}
	}
	c.disk = at
	return os.Chmod(at, 0o700)
}

func (c *chaos) unmount() {
	if c.disk != "" {
		_ = exec.Command("umount", "-l", c.disk).Run() //nolint:noctx // it must come to an end
	}
}

// accidents are what clients may see while a gateway is killed; the rest must never happen.
func accidents(kind string) bool {
	switch kind {
	case refused, reset, cut, failed:
		return true
	}
	return false
}
