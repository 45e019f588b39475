package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCertifyQueue is `make certify-queue`: many kills at random moments, one at each failpoint, and the page about
// what came of them, which is also written when the promise was broken.
func TestCertifyQueue(t *testing.T) {
	page := os.Getenv("GATEWAY_TEST_CERTIFY")
	if page == "" {
		t.Skip("make certify-queue runs this")
	}
	began := time.Now()
	runs := []tally{killAtRandomMoments(t, envInt(t, "GATEWAY_TEST_KILLS", 200))}
	for _, moment := range moments() {
		runs = append(runs, tally{verdict: dieWriting(t, moment), kills: 1, what: "`" + moment + "`"})
	}
	require.NoError(t, os.WriteFile(page, certificate(runs, time.Since(began)), 0o644))
	for _, run := range runs {
		run.requireClean(t)
	}
}

// processor is what the system calls it.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "an unknown processor"
}

func certificate(runs []tally, took time.Duration) []byte {
	var b strings.Builder
	race := ""
	if raceEnabled {
		race = ", with the race detector"
	}
	fmt.Fprintf(&b, `# What kills cost

%s, %s, %s, %s/%s, %d cores of %s%s, took %s. Written by the run itself.

The real program on a real file, killed with SIGKILL and started again on what that left, while 16 clients send turns, wait for them, follow them, cancel them and give them another try. Afterwards one judge compares what the clients were told and what the agents wrote down with what the gateway tells: see `+"`cmd/gateway/history_test.go`"+`.

| kills | when | turns acknowledged | lost | twice | out of order | stuck | event logs with a gap or a wrong end |
|---|---|---|---|---|---|---|---|
`, "`make certify-queue`", time.Now().UTC().Format("2 January 2006"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), race, took.Round(time.Second))
	for _, r := range runs {
		fmt.Fprintf(&b, "| %d | %s | %d | %d | %d | %d | %d | %d |\n", r.kills, r.what, r.acknowledged,
			len(r.lost), len(r.twice), len(r.disordered), len(r.stuck), len(r.incomplete))
	}
	first := runs[0]
	fmt.Fprintf(&b, `
Of the %d kills at random moments %d came while the gateway started. %d turns were asked to be cancelled, %d were given another try, and %d events were streamed to clients that came back for the rest after each kill. Whoever asked for a cancellation and got no answer does not know what became of it: such a turn may be completed or cancelled, but nothing else. Each row below the first is one death at the moment that it names.

A kill takes nothing from the kernel's memory, so this shows what a crash of the program costs. What a power cut may take besides is in `+"`cmd/gateway/e2e_wal_test.go`"+`.
`, first.kills, first.starting, first.cancelled, first.retried, first.streamed)
	return []byte(b.String())
}
