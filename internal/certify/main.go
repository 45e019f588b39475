// Command certify restarts a gateway again and again under full load and counts what its clients saw; and for
// comparison others, as far as they can do the same.
//
//	go run ./internal/certify -restarts 1000 -write docs/bench/zero-loss.md
//
// docs/zero-loss.md says what is done and how to read the report.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if kind := os.Getenv(recipeVariable); kind != "" {
		if err := serveRecipe(kind, os.Getenv(addressVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var restarts plan
	flag.IntVar(&restarts.exec, "exec", 1000, "restarts in the mode exec")
	flag.IntVar(&restarts.spawn, "spawn", 500, "restarts in the mode spawn")
	flag.IntVar(&restarts.inProcess, "in-process", 200, "restarts in the mode in-process")
	flag.IntVar(&restarts.slow, "slow", 20, "restarts in the mode exec while turns run that are longer than the drain")
	flag.IntVar(&restarts.calm, "calm", 300, "restarts in the modes exec and spawn while each client rests for 20 ms on average after each answer")
	flag.IntVar(&restarts.peers, "peers", 100, "restarts of each other server")
	flag.IntVar(&restarts.clients, "clients", 2, "clients of each kind")
	flag.DurationVar(&restarts.between, "between", 100*time.Millisecond, "time between two restarts")
	flag.DurationVar(&restarts.chaos, "chaos", 0, "instead, have everything happen to a gateway for so long, in the mode exec and again in spawn")
	write := flag.String("write", "", "write the report to this file, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := certify(ctx, restarts, *write)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "certify:", err)
		os.Exit(1)
	}
}

// plan is how often each subject is restarted, and under what load.
type plan struct {
	exec, spawn, inProcess, slow, calm, peers int
	clients                                   int // of each kind
	between, chaos                            time.Duration
}

// errLost is what must not be.
var errLost = errors.New("lost something")

func certify(ctx context.Context, p plan, write string) (err error) {
	dir, err := os.MkdirTemp("", "certify-")
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, errLost) { // the gateway's log may say why
			fmt.Fprintln(os.Stderr, "what it left is kept in", dir)
			return
		}
		_ = os.RemoveAll(dir)
	}()
	built, err := build(ctx, dir)
	if err != nil {
		return err
	}
	if p.chaos > 0 {
		return rampage(ctx, p, dir, built, write)
	}
	work := toil(ctx)
	var results []*result
	for _, one := range p.subjects(dir, built) {
		if one.restarts == 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %d restarts\n", one.subject.name(), one.restarts)
		r, err := run(ctx, one, p)
		if err != nil {
			return fmt.Errorf("%s: %w", one.subject.name(), err)
		}
		fmt.Fprintln(os.Stderr, r.summary())
		results = append(results, r)
	}
	text := report(results, append(work, toil(ctx)...), p)
	fmt.Print(text)
	if write != "" {
		if err := os.WriteFile(write, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, r := range results {
		if r.ours && r.tally.lost() > 0 {
			return fmt.Errorf("%s %w: %s", r.title, errLost, r.summary())
		}
	}
	return nil
}

// rampage is a run of chaos in each mode.
func rampage(ctx context.Context, p plan, dir string, built []string, write string) error {
	var all []*slice
	var failed error
	broken := 0
	for _, mode := range []string{"exec", "spawn"} {
		r, err := runChaos(ctx, mode, filepath.Join(dir, mode), built, p.chaos, p.clients)
		if err != nil {
			failed = fmt.Errorf("chaos, %s: %w", mode, err)
			break // what was seen before is kept
		}
		all = append(all, r)
		broken += r.broken()
	}
	if write != "" {
		var err error
		if all, err = keep(strings.TrimSuffix(write, ".md")+".jsonl", all); err != nil {
			return err
		}
	}
	text := chaosPage(all)
	fmt.Print(text)
	if write != "" {
		if err := os.WriteFile(write, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if broken > 0 {
		failed = errors.Join(failed, fmt.Errorf("%d times %w", broken, errLost))
	}
	return failed
}

// slowTurn is how long a turn of the agent slow takes.
const slowTurn = 2 * time.Second

// rest is how long a client that rests does.
const rest = 20 * time.Millisecond

// trial is a subject and how often it is restarted.
type trial struct {
	subject  subject
	restarts int
	kinds    []string
	agent    string
	ours     bool
	between  time.Duration // two restarts
	rest     time.Duration // of each client after each answer
}

func (p plan) subjects(dir string, built []string) (all []trial) {
	ours := func(mode string, n int, drain time.Duration, agent string, rest time.Duration) {
		name := fmt.Sprintf("%s-%s-%s", mode, agent, rest)
		between := p.between
		if agent == "slow" {
			between = slowTurn * 3 / 2
		}
		g := &gateway{mode: mode, dir: filepath.Join(dir, name), built: built, drain: drain}
		all = append(all, trial{g, n, turnKinds, agent, true, between, rest})
	}
	ours("exec", p.exec, 30*time.Second, "echo", 0)
	ours("spawn", p.spawn, 30*time.Second, "echo", 0)
	ours("in-process", p.inProcess, 30*time.Second, "echo", 0)
	ours("exec", p.slow, time.Second, "slow", 0) // three quarters of it are for preparing the successor
	ours("exec", p.calm, 30*time.Second, "echo", rest)
	ours("spawn", p.calm, 30*time.Second, "echo", rest)
	peers := []subject{}
	for _, kind := range []string{"stop-start", "reuseport", "handover"} {
		peers = append(peers, &recipe{kind: kind})
	}
	for path, kinds := range map[string][]func(string) *daemon{"/usr/sbin/nginx": {nginx, nginxUpgrade}, "/usr/sbin/haproxy": {haproxy}} {
		if _, err := exec.LookPath(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s is not installed, and left out\n", path)
			continue
		}
		for i, m := range kinds {
			peers = append(peers, m(filepath.Join(dir, fmt.Sprintf("%s-%d", filepath.Base(path), i))))
		}
	}
	for _, s := range peers {
		all = append(all, trial{s, p.peers, plainKinds, "", false, p.between, 0})
	}
	return all
}

func (r *result) summary() string {
	var all []string
	for _, kind := range losses {
		if n := r.tally.seen[kind]; n > 0 {
			all = append(all, fmt.Sprintf("%s %d (first: %s)", kind, n, r.tally.example[kind]))
		}
	}
	if len(all) == 0 {
		all = []string{"nothing lost"}
	}
	return fmt.Sprintf("  %d answers, %s; gap p99 %s", r.tally.seen[answered], strings.Join(all, ", "), percentile(r.gaps, 0.99))
}
