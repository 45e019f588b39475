package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// await STATE [DIR] waits until `gateway status` shows the state, of the gateway of another state folder if one is named.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: await STATE [DIR]")
	}
	status := []string{"status"}
	if len(args) == 2 {
		status = append(status, "--state-dir", args[1])
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_ = ts.Exec("gateway", status...) // not running yet is an error too
		if slices.ContainsFunc(strings.Split(ts.ReadFile("stdout"), "\n"), func(line string) bool {
			words := strings.Fields(line)
			return len(words) > 1 && words[0] == "state" && words[1] == args[0] // not what was "last seen"
		}) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("never %s", args[0])
		}
	}
}

// exitcode N COMMAND… runs a command and checks what it exits with; its output is compared with stdout and
// stderr as after exec.
func exitCodeOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N COMMAND ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil && !errors.Is(err, context.Canceled) {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}
