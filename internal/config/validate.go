package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/fsm"
	"gateway/internal/advice"
)

// MaxInput is the most that turns.max_input can be.
const MaxInput Bytes = 16 << 20

const (
	maxOutput      Bytes = 256 << 20
	maxTimeout           = 24 * time.Hour
	maxConcurrency       = 10_000
	maxName              = 64
)

// Without a count of characters, as with all that is compiled at every start: each would be a copy of its own.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Problem is one thing that is wrong.
type Problem struct {
	// At is where it was given: file:line:column, a variable or a flag. Empty for a default.
	At string
	// Key is the path of the key, such as turns.max_input. Empty when it is about no key.
	Key string
	// What is wrong; Try is what would be right.
	What, Try string
}

func (p Problem) Error() string { return advice.Text(p.what(), p.Try) }

func (p Problem) what() string {
	text := p.What
	for _, head := range []string{p.Key, p.At} {
		if head != "" {
			text = head + ": " + text
		}
	}
	return text
}

// Problems is everything that is wrong.
type Problems []Problem

func (ps Problems) Error() string {
	if len(ps) == 1 {
		return "config: " + ps[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "config: %d problems", len(ps))
	for _, p := range ps {
		fmt.Fprintf(&b, "\n%s\n  Try: %s", p.what(), p.Try)
	}
	return b.String()
}

var noHome = Problem{Key: "state_dir", What: "there is no home folder for the state folder", Try: "set state_dir or GATEWAY_STATE_DIR"}

// Validate reports everything that is wrong, as [Problems].
func (c *Config) Validate() error {
	if ps := c.problems(); len(ps) > 0 {
		return ps
	}
	return nil
}

func (c *Config) problems() Problems {
	var v validator
	v.listen(c)
	v.choice("store", c.Store, "sqlite")
	v.choice("log.level", c.Log.Level, "trace", "debug", "info", "warn", "error")
	v.choice("log.format", c.Log.Format, "auto", "console", "json")
	if c.StateDir == "" {
		v.problems = append(v.problems, noHome)
	}
	v.auth(c.Auth)
	v.tls(c.TLS)
	v.limits(c.Limits)
	v.timeout("lifecycle.start_timeout", c.Lifecycle.StartTimeout)
	v.timeout("lifecycle.drain_timeout", c.Lifecycle.DrainTimeout)
	v.timeout("lifecycle.shutdown_timeout", c.Lifecycle.ShutdownTimeout)
	v.timeout("lifecycle.respawn_timeout", c.Lifecycle.RespawnTimeout)
	v.choice("lifecycle.respawn", string(c.Lifecycle.Respawn), fsm.ModeNames()...)
	v.turns(c.Turns)
	v.lanes(c.Lanes)
	v.agents(c)
	return v.problems
}

type validator struct{ problems Problems }

func (v *validator) add(key, what, try string) {
	v.problems = append(v.problems, Problem{Key: key, What: what, Try: try})
}

func (v *validator) choice(key, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		v.add(key, strconv.Quote(got)+" is not a choice", strings.Join(allowed, ", "))
	}
}

func (v *validator) timeout(key string, d time.Duration) {
	if d <= 0 || d > maxTimeout {
		v.add(key, fmt.Sprintf("%s is not between 1ns and %s", d, maxTimeout), "a duration such as 30s")
	}
}

func (v *validator) between(key string, n, least, most int64) {
	if n < least || n > most {
		v.add(key, fmt.Sprintf("%d is not between %d and %d", n, least, most), fmt.Sprintf("a number from %d to %d", least, most))
	}
}

func (v *validator) size(key string, n, most Bytes) {
	if n < 1 || n > most {
		v.add(key, fmt.Sprintf("%s is not between 1 and %s", n, most), "a size of at most "+most.String())
	}
}

func (v *validator) listen(c *Config) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		v.add("listen", strconv.Quote(c.Listen)+" is not host:port", "127.0.0.1:18789")
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.add("listen", fmt.Sprintf("the port %q is not a number from 0 to 65535", port), net.JoinHostPort(host, "18789"))
	} else if !loopback(host) && !c.Auth.On() {
		v.add("listen", fmt.Sprintf("%s can be reached from other machines, and there is no token", c.Listen),
			fmt.Sprintf("set auth.token or GATEWAY_AUTH_TOKEN, or listen on 127.0.0.1:%d", n))
	}
}

// loopback: a name other than localhost may resolve to anything.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func (v *validator) tls(t TLS) {
	switch {
	case t.Cert == "" && t.Key != "":
		v.add("tls.cert", "there is a key but no certificate", "tls: { cert: FILE, key: FILE }")
	case t.Cert != "" && t.Key == "":
		v.add("tls.key", "there is a certificate but no key", "tls: { cert: FILE, key: FILE }")
	}
}

func (v *validator) limits(l Limits) {
	v.between("limits.connections", int64(l.Connections), 1, 1_000_000)
	v.between("limits.connections_per_address", int64(l.ConnectionsPerAddress), 0, 1_000_000)
	v.between("limits.requests_per_second", int64(l.RequestsPerSecond), 0, 1_000_000)
	v.between("limits.burst", int64(l.Burst), 1, 1_000_000)
}

func (v *validator) turns(t Turns) {
	v.between("turns.max_attempts", int64(t.MaxAttempts), 1, 1000)
	if t.RetryBackoff < time.Millisecond || t.RetryBackoff > time.Minute {
		v.add("turns.retry_backoff", t.RetryBackoff.String()+" is not between 1ms and 1m", "1s")
	}
	v.choice("turns.on_interrupt", t.OnInterrupt, "retry", "fail")
	v.between("turns.max_queued", int64(t.MaxQueued), 1, 10_000_000)
	v.between("turns.max_queued_per_session", int64(t.MaxQueuedPerSession), 1, 10_000_000)
	v.size("turns.max_input", t.MaxInput, MaxInput)
	v.size("turns.max_output", t.MaxOutput, maxOutput)
	if t.Retention < time.Minute {
		v.add("turns.retention", fmt.Sprintf("%s is shorter than a minute", t.Retention), "168h")
	}
}

func (v *validator) lanes(lanes map[string]Lane) {
	if _, ok := lanes["main"]; !ok {
		v.add("lanes", "there is no lane main", "lanes: { main: { concurrency: 4 } }")
	}
	for _, name := range slices.Sorted(maps.Keys(lanes)) {
		v.name("lanes", name)
		v.between("lanes."+name+".concurrency", int64(lanes[name].Concurrency), 1, maxConcurrency)
	}
}

func isName(s string) bool { return len(s) <= maxName && nameForm.MatchString(s) }

func (v *validator) name(key, name string) {
	if !isName(name) {
		v.add(key+"."+name, strconv.Quote(name)+" is not a name", "letters, digits, dot, dash and underscore, at most 64")
	}
}

func (v *validator) agents(c *Config) {
	if _, ok := c.Agents[c.DefaultAgent]; !ok {
		v.add("default_agent", fmt.Sprintf("there is no agent %q", c.DefaultAgent), strings.Join(slices.Sorted(maps.Keys(c.Agents)), ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Agents)) {
		v.name("agents", name)
		v.agent("agents."+name, c.Agents[name])
	}
}

func (v *validator) agent(key string, a Agent) {
	if a.Timeout < 0 || a.Timeout > 7*maxTimeout {
		v.add(key+".timeout", a.Timeout.String()+" is not between 0s and 168h", "30m")
	}
	for name := range a.Env {
		if name == "" || strings.ContainsAny(name, "=: \t\r\n\x00") {
			v.add(key+".env", "this is not the name of a variable with a value", "env: { NAME: value }") // not quoted: it may hold the value
			break
		}
	}
	if a.Mode != "" {
		v.choice(key+".mode", a.Mode, "followup", "collect", "interrupt")
	}
	command := len(a.Command) > 0 || a.Dir != "" || len(a.Env) > 0
	openai := a.BaseURL != "" || a.Model != "" || a.APIKey != "" || a.System != ""
	switch a.Type {
	case "echo":
		if command || openai {
			v.add(key, "an echo agent takes no other keys", "type: command or type: openai")
		}
	case "command":
		if len(a.Command) == 0 || a.Command[0] == "" {
			v.add(key+".command", "no program is named", "command: [claude, -p]")
		}
		if openai {
			v.add(key, "a command agent takes command, dir, env and timeout", "type: openai for an endpoint")
		}
	case "openai":
		u, err := url.Parse(a.BaseURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			v.add(key+".base_url", "this is not the address of an endpoint", "http://127.0.0.1:11434/v1") // not quoted: it may hold a password
		}
		if a.Model == "" {
			v.add(key+".model", "no model is named", "model: llama3.2")
		}
		if command {
			v.add(key, "an openai agent takes base_url, model, api_key, system and timeout", "type: command for a program")
		}
	default:
		v.add(key+".type", strconv.Quote(a.Type)+" is not a type", "echo, command or openai")
	}
}
