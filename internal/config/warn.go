package config

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scarcelyPrepared is less than a program needs to start and to read its configuration on a busy machine, now and then.
const scarcelyPrepared = 750 * time.Millisecond

// Warnings are what is valid but cannot work on this machine as it is now: the configuration may have been
// written for another one, or before a program is installed.
func (l Loaded) Warnings() Problems {
	found := append(l.tokenWarnings(), l.tlsWarnings(time.Now())...)
	if host, _, err := net.SplitHostPort(l.Config.Listen); err == nil && !loopback(host) && !l.Config.TLS.On() {
		found = append(found, Problem{
			l.at("listen"), "listen", l.Config.Listen + " can be reached from other machines, and the token is sent unencrypted",
			"tls: { cert: FILE, key: FILE }, or listen on 127.0.0.1 behind a proxy that speaks TLS",
		})
	}
	if l.Config.Lifecycle.PrepareTimeout() < scarcelyPrepared {
		key := "lifecycle.drain_timeout"
		if l.Config.Lifecycle.RespawnTimeout < scarcelyPrepared {
			key = "lifecycle.respawn_timeout"
		}
		found = append(found, Problem{
			l.at(key), key, fmt.Sprintf("a successor has only %s to prepare; on a busy machine restarts will be called off", l.Config.Lifecycle.PrepareTimeout()),
			"1s or more; gateway restart --force does not wait for turns",
		})
	}
	for _, name := range slices.Sorted(maps.Keys(l.Config.Agents)) {
		a, key := l.Config.Agents[name], "agents."+name
		if a.Type != "command" {
			continue
		}
		if stat, err := os.Stat(a.Dir); a.Dir != "" && (err != nil || !stat.IsDir()) {
			found = append(found, Problem{l.at(key + ".dir"), key + ".dir", "there is no folder " + a.Dir, "mkdir " + a.Dir})
			continue
		}
		program := a.Command[0]
		where, try := "on PATH", "install it, or write its path in full"
		if strings.ContainsRune(program, filepath.Separator) {
			where, try = "there, or it is not executable", "the path of a program in full"
			if !filepath.IsAbs(program) {
				program = filepath.Join(a.Dir, program) // where it is looked for when it is run
			}
		}
		if _, err := exec.LookPath(program); err != nil {
			found = append(found, Problem{l.at(key + ".command"), key + ".command", "there is no program " + strconv.Quote(a.Command[0]) + " " + where, try})
		}
	}
	return found
}
