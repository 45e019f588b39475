package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// report is the page.
func report(results []*result, work []time.Duration, p plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What clients saw of restarts\n\n")
	fmt.Fprintf(&b, "`%s`, %s. Written by the run itself. What is done, and how to read it, is in [zero-loss.md](../zero-loss.md).\n\n", command(), machine())
	fmt.Fprintf(&b, "| server | restarts | answers |")
	for _, kind := range losses {
		fmt.Fprintf(&b, " %s |", kind)
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(losses)) + "\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %d | %d |", r.title, r.restarts, r.tally.seen[answered])
		for _, kind := range losses {
			if !r.ours && ofTurns(kind) {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(&b, " %d |", r.tally.seen[kind])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| server | longest gap without any answer: p50 | p99 | max | slowest answer | asked until served: p50 | p99 | memory, steady | both generations, peak | the same, another program | streams that came back |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		together := func(n int) string {
			return fmt.Sprintf("%.0f MB, %.2f times", float64(n)/1e6, float64(n)/float64(max(r.steady, 1)))
		}
		upgraded := "–"
		if r.upgraded > r.steady { // two are more than one: a smaller reading missed one of them
			upgraded = together(r.upgraded)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %.0f MB | %s | %s | %d |\n", r.title,
			ms(percentile(r.gaps, 0.5)), ms(percentile(r.gaps, 0.99)), ms(percentile(r.gaps, 1)), ms(r.tally.slowest),
			ms(percentile(r.times, 0.5)), ms(percentile(r.times, 0.99)),
			float64(r.steady)/1e6, together(r.peak), upgraded, r.tally.resumed)
	}
	for _, r := range results {
		if r.stuck != nil {
			fmt.Fprintf(&b, "\n%s, after %d restarts it came to an end: `%v`\n", r.title, r.restarts, r.stuck)
		}
		for _, kind := range losses {
			if n := r.tally.seen[kind]; n > 0 {
				fmt.Fprintf(&b, "\n%s, %s, the first: `%s`\n", r.title, kind, strings.ReplaceAll(r.tally.example[kind], "`", "'"))
			}
		}
	}
	fmt.Fprintf(&b, "\n%d clients of each kind, %s between restarts.\n", p.clients, p.between)
	fmt.Fprintf(&b, "\nWhat the machine is worth: the same piece of work, done again and again with nothing else running, before the trials and after them, took %s at the median, %s at the 99th percentile and %s at most. A gap cannot be steadier than that.\n",
		ms(percentile(work, 0.5)), ms(percentile(work, 0.99)), ms(percentile(work, 1)))
	return b.String()
}

// ofTurns: only a gateway has turns and events to lose.
func ofTurns(kind string) bool {
	switch kind {
	case missed, doubled, notFound, twice, disorder:
		return true
	}
	return false
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func command() string {
	return strings.Join(append([]string{"go run ./internal/certify"}, os.Args[1:]...), " ")
}

// machine is when and where.
func machine() string {
	return fmt.Sprintf("%s, %s, %s/%s, %d cores of %s",
		time.Now().Format("2 January 2006"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor())
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t: "))
		}
	}
	return "an unknown processor"
}
