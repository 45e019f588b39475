// Package doctor checks everything that a gateway needs on this machine. It changes nothing, whether a gateway runs or not.
package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"gateway/fsm"
	"gateway/internal/advice"
	"gateway/internal/client"
	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/internal/statedir"
	"gateway/queue"
)

const (
	// scarce and spent are free bytes on the state folder's disk, below which doctor reports a warning and an error.
	scarce, spent = 1 << 30, 32 << 20
	// shortToken and fewKinds are the least characters, and the least different characters, of a token that is hard to guess.
	shortToken, fewKinds = 20, 8
	// askTime bounds the request for the gateway's status.
	askTime = 5 * time.Second
	// skew is how far ahead of the clock the newest record may be, because clocks are corrected.
	skew = time.Minute
)

// Time bounds all checks together. The check of a large store takes longest.
const Time = 2 * time.Minute

// Health is the result of a check.
type Health string

// Results of a check, from the best to the worst.
const (
	OK      Health = "ok"
	Warning Health = "warning" // works, but perhaps not for long or not as intended
	Error   Health = "error"   // does not work
)

// Finding is the result of one check. Its texts hold no secrets.
type Finding struct {
	Check  string `json:"check"`
	Health Health `json:"health"`
	// What was found, and how to fix it; Try is empty when there is nothing to fix.
	What string `json:"what"`
	Try  string `json:"try,omitempty"`
}

// Program is the executable that runs the checks; `gateway run` here would start the same one.
type Program struct {
	Version string
	Built   time.Time // time of the sources; zero when unknown
}

// Examine runs all checks with the configuration from source, within Time.
func Examine(ctx context.Context, source config.Source, p Program) []Finding {
	ctx, cancel := context.WithTimeout(ctx, Time)
	defer cancel()
	x := examination{source: source, program: p}
	x.examine(ctx)
	return x.findings
}

type examination struct {
	source   config.Source
	program  Program
	findings []Finding
	config   config.Loaded
	dir      string
	client   *client.Client
	running  *client.Snapshot // nil when no gateway answers to client
}

func (x *examination) add(check string, h Health, what, try string) {
	x.findings = append(x.findings, Finding{check, h, what, try})
}

// fault adds an error with its own advice, or else with try.
func (x *examination) fault(check string, h Health, err error, try string) {
	what, own := advice.Split(err)
	x.add(check, h, what, cmp.Or(own, try))
}

func (x *examination) examine(ctx context.Context) {
	if !x.configuration() {
		return // all other checks depend on it
	}
	x.token()
	folder := x.folder()
	if folder {
		x.disk()
		x.gateway(ctx)
	}
	if !x.successor(ctx) {
		x.programs()
	}
	if folder {
		x.starts()
		x.clock()
		x.store(ctx)
	}
	x.address(ctx)
	x.files()
	x.supervisor()
	x.supervised()
}

func (x *examination) configuration() bool {
	loaded, err := config.Load(x.source)
	if err != nil {
		x.fault("configuration", Error, err, "gateway check")
		return false
	}
	x.config, x.dir = loaded, loaded.Config.StateDir
	from := "no file; the defaults"
	if loaded.File != "" {
		from = loaded.File
	}
	x.add("configuration", OK, "valid: "+from, "")
	if st, err := os.Stat(loaded.File); err == nil && st.Mode().Perm()&0o077 != 0 && tokenInside(loaded) {
		x.add("configuration", Warning, fmt.Sprintf("other users of this machine can read %s, which holds the token (mode %04o)", loaded.File, st.Mode().Perm()), "chmod 600 "+loaded.File)
	}
	return true
}

// programs checks the agents' programs, and what else of the configuration cannot work on this machine.
func (x *examination) programs() {
	found := x.config.Warnings()
	agents := 0
	for _, p := range found {
		name := "configuration"
		if strings.HasPrefix(p.Key, "agents.") {
			name = "agents"
			agents++
		}
		x.add(name, Warning, p.Key+": "+p.What, p.Try)
	}
	if agents == 0 {
		x.add("agents", OK, fmt.Sprintf("%d configured, all programs found", len(x.config.Config.Agents)), "")
	}
}

// tokenInside reports whether the configuration's file itself holds a token.
func tokenInside(l config.Loaded) bool {
	if strings.HasPrefix(l.Origins["auth.token"], "file") && l.Config.Auth.Token != "" {
		return true
	}
	for _, c := range l.Config.Auth.Clients {
		if c.Token != "" {
			return true
		}
	}
	return false
}

func (x *examination) token() {
	weak := 0
	for _, name := range slices.Sorted(maps.Keys(x.config.Tokens)) {
		kinds := make(map[rune]bool)
		for _, r := range x.config.Tokens[name] {
			kinds[r] = true
		}
		if len(x.config.Tokens[name]) >= shortToken && len(kinds) >= fewKinds {
			continue
		}
		weak++
		whose, try := "the token", "GATEWAY_AUTH_TOKEN=$(openssl rand -hex 32)"
		if name != "" {
			whose, try = "the token of the client "+name, "another one, from: openssl rand -hex 32"
		}
		x.add("token", Warning, whose+" is short or regular enough to be guessed", try)
	}
	clients := len(x.config.Config.Auth.Clients)
	switch {
	case weak > 0:
	case !x.config.Config.Auth.On():
		x.add("token", OK, "none; clients must be on this machine", "")
	case clients > 0:
		x.add("token", OK, fmt.Sprintf("set; clients with their own token: %d", clients), "")
	default:
		x.add("token", OK, "set", "")
	}
}

func (x *examination) folder() bool {
	const name = "state folder"
	st, err := os.Stat(x.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(x.dir)
		for parent != filepath.Dir(parent) && !isDir(parent) {
			parent = filepath.Dir(parent)
		}
		if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
			x.add(name, Error, fmt.Sprintf("%s does not exist and cannot be created: %s: %v", x.dir, parent, err), "another state_dir, or create the folder as a user who may")
			return false
		}
		x.add(name, OK, x.dir+" does not exist yet; the first start creates it", "")
		return false
	case err != nil:
		x.fault(name, Error, err, "ls -ld "+x.dir)
		return false
	case !st.IsDir():
		x.add(name, Error, x.dir+" is not a folder", "another state_dir")
		return false
	}
	if err := unix.Access(x.dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		x.add(name, Error, fmt.Sprintf("%s cannot be used by this user: %v", x.dir, err), "run gateway as the user who owns it: ls -ld "+x.dir)
		return false
	}
	if kind, short := doubtfulFileSystem(x.dir); kind != "" {
		x.add(name, Warning, fmt.Sprintf("%s is on %s: %s", x.dir, kind, short), "a state_dir on a local disk")
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
		x.add(name, Warning, fmt.Sprintf("%s belongs to user %d, who cannot use files that this user (%d) writes", x.dir, owner.Uid, os.Getuid()), "run gateway as the user who owns it: ls -ld "+x.dir)
	}
	if st.Mode().Perm()&0o077 != 0 {
		x.add(name, Warning, fmt.Sprintf("other users of this machine can read %s (mode %04o)", x.dir, st.Mode().Perm()), "chmod 700 "+x.dir)
		return true
	}
	x.add(name, OK, x.dir, "")
	return true
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func (x *examination) disk() {
	var st unix.Statfs_t
	if err := unix.Statfs(x.dir, &st); err != nil {
		x.fault("disk", Warning, err, "df "+x.dir)
		return
	}
	free := uint64(st.Bavail) * uint64(st.Bsize) //nolint:unconvert // the types differ from system to system
	what := humanize.IBytes(free) + " free"
	switch {
	case free < spent:
		x.add("disk", Error, what+": new turns are refused when the disk is full", "make room: df "+x.dir)
	case free < scarce:
		x.add("disk", Warning, what, "make room, or keep turns for a shorter time: turns.retention")
	default:
		x.add("disk", OK, what, "")
	}
}

func (x *examination) gateway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	x.client = client.In(x.dir)
	s, err := x.client.Snapshot(ctx)
	_, absent := errors.AsType[*client.AbsentError](err)
	switch {
	case absent && statedir.Owned(x.dir):
		x.add("gateway", Error, "no gateway answers, but a process holds the lock of the state folder", "find the process: fuser -v "+filepath.Join(x.dir, statedir.LockFile))
	case absent:
		what := "not running, and the lock is free"
		if owner, err := statedir.ReadOwner(x.dir); err == nil && statedir.Crashed(x.dir) {
			what += fmt.Sprintf("; process %d left the lock when it died, and the next start takes it", owner.PID)
		}
		x.add("gateway", OK, what, "")
	case err != nil:
		x.fault("gateway", Error, fmt.Errorf("the gateway holds the lock but does not answer: %w", err), "gateway stop, or kill -QUIT to see in the log where it hangs")
	default:
		x.running = &s
		what := fmt.Sprintf("%s since %s, pid %d, version %s", s.State, s.Since.Local().Format(time.DateTime), s.PID, s.Version)
		switch {
		case s.Version != x.program.Version:
			x.add("gateway", Warning, what+"; this is version "+x.program.Version, "gateway restart")
		case s.Turns.Stuck > 0:
			x.add("gateway", Warning, fmt.Sprintf("%s; %d cancelled turns have not ended", what, s.Turns.Stuck), "gateway turns, and check why their agents do not end")
		case s.State != fsm.Running:
			x.add("gateway", Warning, what, "gateway status --watch")
		default:
			x.add("gateway", OK, what, "")
		}
	}
}

// successor requests from the running gateway what its successor would find, because the gateway may have another file,
// other flags and other variables than this command. It reports whether the result is known.
func (x *examination) successor(ctx context.Context) bool {
	if x.running == nil {
		return false
	}
	next, unknown, err := x.client.CheckSuccessor(ctx)
	switch {
	case err != nil:
		x.fault("successor", Warning, fmt.Errorf("not known: %w", err), "gateway restart --explain")
		return false
	case unknown != "":
		x.add("successor", OK, "not known: "+unknown, "")
		return false
	case !next.Ready:
		x.fault("successor", Error, fmt.Errorf("a restart would be called off: %s", next.Reason), "gateway restart --explain")
		return true
	}
	for _, w := range next.Warnings {
		x.fault("successor", Warning, errors.New(w), "gateway check")
	}
	what := "version " + next.Version + " can take over"
	if len(next.Warnings) == 0 {
		what += " without warnings"
	}
	x.add("successor", OK, what, "")
	return true
}

func (x *examination) starts() {
	if f := statedir.ReadFailedStarts(x.dir); f.Count > 0 {
		x.add("starts", Warning, fmt.Sprintf("the last %d starts failed, the latest on %s: %s", f.Count, f.Last.Local().Format(time.DateTime), f.Reason), "fix that, then gateway run")
	}
}

// clock compares the clock with the newest record: turns are kept and ordered by the clock.
func (x *examination) clock() {
	now := time.Now()
	var newest time.Time
	err := statedir.ReadJournal(x.dir, func(line []byte) {
		var h struct{ Time time.Time }
		if json.Unmarshal(line, &h) == nil && h.Time.After(newest) {
			newest = h.Time
		}
	})
	switch built := x.program.Built; {
	case now.Before(built):
		x.add("clock", Warning, fmt.Sprintf("the clock is at %s, but this program was built from sources of %s", now.Format(time.DateTime), built.Local().Format(time.DateTime)), "set the clock: timedatectl set-ntp true")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		x.fault("clock", Warning, err, "ls -l "+x.dir)
	case newest.Sub(now) > skew:
		x.add("clock", Warning, fmt.Sprintf("the clock is at %s, but the newest record is of %s", now.Format(time.DateTime), newest.Local().Format(time.DateTime)), "check the clock: timedatectl, or date")
	default:
		x.add("clock", OK, now.Format(time.DateTime), "")
	}
}

// store checks the store when no gateway uses it.
func (x *examination) store(ctx context.Context) {
	path := filepath.Join(x.dir, statedir.StoreFile)
	if x.running != nil {
		x.add("store", OK, "in use; the gateway checks it after a crash", "")
		return
	}
	began := time.Now()
	found, err := queue.Inspect(ctx, path)
	switch {
	case statedir.Owned(x.dir):
		x.add("store", Warning, "a gateway started to use it during the check", "gateway doctor again")
	case errors.Is(err, queue.ErrNoIndex):
		x.add("store", Warning, "not checked: the last gateway crashed, and checking now would write to the store; the next start recovers and checks it", "gateway run")
	case errors.Is(err, fs.ErrNotExist):
		x.add("store", OK, "none yet; the first start creates it", "")
	case errors.Is(err, context.DeadlineExceeded):
		x.add("store", Warning, "too large to be checked within "+Time.String(), "gateway backup FILE, which checks the copy")
	case errors.Is(err, queue.ErrDamaged):
		x.fault("store", Error, err, "restore a backup, or move the file away")
	case err != nil:
		x.fault("store", Error, err, "ls -l "+path)
	default:
		x.add("store", OK, fmt.Sprintf("undamaged, %s turns, schema %d of %d, checked in %s", humanize.Comma(found.Turns), found.Schema, found.Known, time.Since(began).Round(time.Millisecond)), "")
	}
}

func (x *examination) supervisor() {
	if x.running != nil {
		x.add("restart", OK, fmt.Sprintf("by %s (%s)", x.running.RespawnMode, x.running.RespawnReason), "")
		return
	}
	around := handoff.Look()
	around.TLS, around.NoRespawn = x.config.Config.TLS.On(), x.config.NoRespawn()
	mode, why := around.Choose(x.config.Config.Lifecycle.Respawn)
	x.add("restart", OK, fmt.Sprintf("by %s (%s) when run from here", mode, why), "")
	if around.Supervisor == "" && runtime.GOOS == "linux" {
		x.add("supervisor", OK, "none; after a crash nothing restarts a gateway that was started from here. gateway service install sets up systemd", "")
	}
}

// supervised warns when the respawn mode needs a supervisor and there is none.
func (x *examination) supervised() {
	if x.config.Config.Lifecycle.Respawn != fsm.ModeSupervisor || (x.running == nil && handoff.Look().Supervisor != "") {
		return
	}
	if x.running == nil || !strings.Contains(x.running.RespawnReason, "supervised by") {
		x.add("supervisor", Warning, "lifecycle.respawn is supervisor, and no supervisor was found", "respawn: auto, or gateway service install")
	}
}
