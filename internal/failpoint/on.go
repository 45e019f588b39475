//go:build failpoints

package failpoint

import (
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Enabled reports whether marks do anything.
const Enabled = true

// At marks a moment.
func At(moment string) {
	name, act, _ := strings.Cut(os.Getenv(Env), "=")
	if name != moment || os.Remove(os.Getenv(EnvOnce)) != nil {
		return
	}
	if act != "stop" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		return
	}
	// Any thread may be the one that stops all others, so this one might get far beyond the mark.
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, unix.SIGCONT)
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	<-goesOn
	signal.Stop(goesOn)
}

// Now is the wall clock.
func Now() time.Time {
	now := time.Now()
	if b, err := os.ReadFile(os.Getenv(EnvClock)); err == nil {
		if ahead, err := time.ParseDuration(strings.TrimSpace(string(b))); err == nil {
			now = now.Round(0).Add(ahead) // a clock that is set leaves the monotonic one alone
		}
	}
	return now
}

// Hour is the time between two of what happens hourly.
func Hour() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(EnvHour)); err == nil {
		return d
	}
	return time.Hour
}
