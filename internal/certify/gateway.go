package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// gateway is ours, in one mode of restart.
type gateway struct {
	mode string
	dir  string
	// built are two binaries of different versions, which take turns.
	built []string
	round int

	p     *program
	http  *http.Client // over the control socket, so that asking disturbs nobody
	drain time.Duration

	listen   string // empty for any free port
	timeouts string // other than the drain's, as they are written in the configuration
	more     string // of the configuration: agents and turns; empty for the usual
}

// usual is what the configuration says of turns and agents.
func (g *gateway) usual() string {
	return fmt.Sprintf(`turns: { max_queued_per_session: 100000, max_output: %dKiB }
agents:
  slow: { type: command, command: [sh, -c, "sleep %g; cat"] }
`, 8192+g.round, slowTurn.Seconds())
}

// build makes the two binaries.
func build(ctx context.Context, dir string) (built []string, err error) {
	for _, version := range []string{"certify-a", "certify-b"} {
		path := filepath.Join(dir, version)
		cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.stamped="+version, "-o", path, "gateway/cmd/gateway")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("building the gateway: %w", err)
		}
		built = append(built, path)
	}
	return built, nil
}

func (g *gateway) name() string { return "gateway, " + g.mode }
func (g *gateway) path() string { return "" }

// forkedOnly is a flag of the kernel's: a child that is about to become another program, such as an agent's.
const forkedOnly = 0x40

func (g *gateway) pids() (pids []int) {
	for _, pid := range running(g.executable()) {
		p, err := procfs.NewProc(pid)
		if err != nil {
			continue
		}
		stat, err := p.Stat() // before the program is looked at again: it may become another one meanwhile
		if err != nil || stat.Flags&forkedOnly != 0 {
			continue
		}
		if path, err := p.Executable(); err == nil && strings.HasPrefix(path, g.executable()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (g *gateway) executable() string { return filepath.Join(g.dir, "gateway") }

// configure writes a configuration that differs from the one before.
func (g *gateway) configure() error {
	text := fmt.Sprintf(`listen: %s
state_dir: %s
lifecycle: { respawn: %s, drain_timeout: %s, %sallow_signal_restart: true }
lanes: { main: { concurrency: %d } }
%s`, cmp.Or(g.listen, "127.0.0.1:0"), filepath.Join(g.dir, "state"), g.mode, g.drain, g.timeouts, 64+g.round%2, cmp.Or(g.more, g.usual()))
	path := filepath.Join(g.dir, "gateway.yaml")
	beside := path + ".new" // a gateway that starts meanwhile must not find half of it
	return errors.Join(os.WriteFile(beside, []byte(text), 0o600), os.Rename(beside, path))
}

// install puts the next binary in the place of the one that runs, before every other restart.
func (g *gateway) install() error {
	if g.round%2 == 1 {
		return nil
	}
	next := g.built[g.round/2%len(g.built)]
	beside := g.executable() + ".new"
	_ = os.Remove(beside)
	if err := os.Link(next, beside); err != nil {
		return err
	}
	return os.Rename(beside, g.executable())
}

func (g *gateway) start(ctx context.Context) (string, error) {
	if err := errors.Join(os.MkdirAll(g.dir, 0o700), g.configure(), g.install()); err != nil {
		return "", err
	}
	socket := filepath.Join(g.dir, "state", "gateway.sock")
	g.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}, Timeout: patience}
	var err error
	if g.p, err = launch(g.dir, nil, g.executable(), "run", "--config", "gateway.yaml"); err != nil {
		return "", err
	}
	var s status
	err = eventually(ctx, "the gateway runs", func() bool {
		s, err = g.status(ctx)
		return err == nil && s.State == "Running"
	})
	return strings.TrimPrefix(s.Address, "http://"), err
}

// status is the part of the lifecycle's document that is looked at.
type status struct {
	State      string
	Address    string
	BootID     string `json:"boot_id"`
	Generation int
	PID        int
}

// noHops is a number that no hop reaches: the history is not asked for, as the answer would be long and the question
// is put often.
const noHops = "9007199254740991"

func (g *gateway) status(ctx context.Context) (s status, err error) {
	return s, g.call(ctx, http.MethodGet, "/v1/lifecycle?after="+noHops, "", &s)
}

func (g *gateway) call(ctx context.Context, method, path, body string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := g.http.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// restart asks by API and by signal in turn, every time with another configuration, and every other time with another binary.
func (g *gateway) restart(ctx context.Context) error {
	before, err := g.status(ctx)
	if err != nil {
		return err
	}
	g.round++
	if err := errors.Join(g.configure(), g.install()); err != nil {
		return err
	}
	switch g.round % 3 {
	case 0:
		err = syscall.Kill(before.PID, syscall.SIGHUP)
	case 1:
		err = syscall.Kill(before.PID, syscall.SIGUSR1)
	default:
		var decision any
		err = g.call(ctx, http.MethodPost, "/v1/lifecycle/restart", `{"reason":"certify"}`, &decision)
	}
	if err != nil {
		return err
	}
	return eventually(ctx, "the next generation runs", func() bool {
		after, err := g.status(ctx)
		return err == nil && after.State == "Running" && (after.BootID != before.BootID || after.Generation != before.Generation)
	})
}

func (g *gateway) stop() error {
	if g.p == nil {
		return nil
	}
	// A restart by spawn has left the process that was started here.
	for _, pid := range g.pids() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	err := eventually(context.Background(), "the gateway stops", func() bool { return len(g.pids()) == 0 })
	return errors.Join(err, g.p.end())
}

// turn is the part of a turn's document that is judged.
type turn struct {
	ID, Session, Status, Input, Output, Error string
	StartedAt                                 *time.Time `json:"started_at"`
}

// became says how the turn ended.
func (t turn) became() string {
	return fmt.Sprintf("%s %q %s", t.Status, t.Output, t.Error)
}

// judge asks the gateway for every turn that was ever accepted, and compares them with what the clients were told.
func (g *gateway) judge(ctx context.Context, t *tally) error {
	var open struct{ Turns []json.RawMessage }
	var asked error
	if err := eventually(ctx, "every turn has ended", func() bool {
		open.Turns = nil
		asked = g.call(ctx, http.MethodGet, "/v1/turns?status=queued,running&limit=10", "", &open)
		return asked == nil && len(open.Turns) == 0
	}); err != nil {
		return fmt.Errorf("%w; asked last: %w, %s", err, cmp.Or(asked, errors.New("open")), open.Turns)
	}
	seen := make(map[string]bool)  // by id
	made := make(map[string]turn)  // by tag
	newer := make(map[string]turn) // by session: the one after, in the order of acceptance
	var sampled []string
	for before := ""; ; {
		var page struct {
			Turns []turn
			More  bool `json:"has_more"`
		}
		if err := g.call(ctx, http.MethodGet, "/v1/turns?limit=1000"+before, "", &page); err != nil {
			return err
		}
		for i, one := range page.Turns {
			seen[one.ID] = true
			if first, ok := made[one.Input]; ok {
				t.lose(twice, fmt.Sprintf("%s was made as %s and as %s", one.Input, first.ID, one.ID))
			}
			made[one.Input] = one
			if acked, ok := t.turns[one.ID]; ok && (one.Status != "completed" || one.Output != acked.tag) {
				t.lose(notFound, fmt.Sprintf("%s, %s: %s", one.ID, acked.tag, one.became()))
			}
			if next, ok := newer[one.Session]; ok && (number(one.Input) > number(next.Input) || one.StartedAt.After(*next.StartedAt)) {
				t.lose(disorder, fmt.Sprintf("%s ran beside or after %s", one.Input, next.Input))
			}
			newer[one.Session] = one
			if i%50 == 0 {
				sampled = append(sampled, one.ID)
			}
		}
		if !page.More {
			break
		}
		before = "&before=" + page.Turns[len(page.Turns)-1].ID
	}
	for id, acked := range t.turns {
		if !seen[id] {
			t.lose(notFound, fmt.Sprintf("%s, %s is not there", id, acked.tag))
		}
	}
	for _, tag := range t.tags {
		if one := made[tag]; one.Status != "completed" || one.Output != tag {
			t.lose(notFound, fmt.Sprintf("%s: %s", tag, one.became()))
		}
	}
	return g.judgeLogs(ctx, t, sampled)
}

// judgeLogs looks at the logs of some turns: no gap, one end.
func (g *gateway) judgeLogs(ctx context.Context, t *tally, ids []string) error {
	for _, id := range ids {
		var log struct {
			Events []struct {
				Seq  int
				Type string
			}
		}
		if err := g.call(ctx, http.MethodGet, "/v1/turns/"+id+"/events", "", &log); err != nil {
			return err
		}
		ends := 0
		for i, e := range log.Events {
			if e.Seq != i+1 {
				t.lose(missed, fmt.Sprintf("%s: event %d where %d should be", id, e.Seq, i+1))
			}
			if e.Type == "completed" {
				ends++
			}
		}
		if ends != 1 {
			t.lose(twice, fmt.Sprintf("%s ended %d times", id, ends))
		}
	}
	return nil
}

// number is a tag's place in its session.
func number(tag string) (n int) {
	_, _ = fmt.Sscanf(tag[strings.LastIndexByte(tag, '-')+1:], "%d", &n)
	return n
}
