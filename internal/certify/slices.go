package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// slice is what one run of chaos showed. Those of all runs are kept beside the page, a line each, and the page adds
// them up: hours of it are had in slices.
type slice struct {
	Date       string         `json:"date"`
	Version    string         `json:"version"` // of the sources
	Mode       string         `json:"mode"`
	Minutes    float64        `json:"minutes"`
	Done       map[string]int `json:"done"`
	Starts     int            `json:"starts"` // by the supervisor
	Disk       bool           `json:"disk"`   // it could be full
	Acked      int            `json:"acknowledged"`
	Seen       map[string]int `json:"seen"`
	Resumed    int            `json:"resumed"`
	FirstFault string         `json:"first_fault,omitempty"`
}

func newSlice(mode string, lasted time.Duration, c *chaos, seen *tally) *slice {
	r := &slice{
		Date: time.Now().Format("2 January 2006"), Version: sources(), Mode: mode, Minutes: lasted.Minutes(), Done: c.done, Starts: c.starts,
		Disk: c.disk != "", Acked: len(seen.turns) + len(seen.tags), Seen: seen.seen, Resumed: seen.resumed,
	}
	for _, kind := range losses {
		if why := seen.example[kind]; why != "" && !accidents(kind) {
			r.FirstFault = kind + ": " + why
			break
		}
	}
	return r
}

// sources is what git calls the sources; empty where there is no git.
func sources() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output() //nolint:noctx // it looks at a few files
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// broken is how many promises were.
func (r *slice) broken() (n int) {
	for _, kind := range losses {
		if !accidents(kind) {
			n += r.Seen[kind]
		}
	}
	return n
}

// keep puts the slices behind those of earlier runs, and returns all.
func keep(path string, fresh []*slice) ([]*slice, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*slice
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		r := &slice{}
		if err := json.Unmarshal(lines.Bytes(), r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	for _, r := range fresh {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		text = append(append(text, line...), '\n')
	}
	beside := path + ".new"
	return append(all, fresh...), errors.Join(lines.Err(), os.WriteFile(beside, text, 0o644), os.Rename(beside, path))
}

// total adds up slices.
func total(all []*slice) *slice {
	sum := &slice{Mode: "**all**", Done: map[string]int{}, Seen: map[string]int{}}
	for _, r := range all {
		sum.Minutes += r.Minutes
		sum.Starts += r.Starts
		sum.Acked += r.Acked
		sum.Resumed += r.Resumed
		for name, n := range r.Done {
			sum.Done[name] += n
		}
		for kind, n := range r.Seen {
			sum.Seen[kind] += n
		}
	}
	return sum
}

// chaosPage is the report.
func chaosPage(all []*slice) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What became of acknowledged turns while everything happened\n\n")
	fmt.Fprintf(&b, "`%s`, the last of several runs; %s. Written by the runs themselves, from [chaos.jsonl](chaos.jsonl). What is done is in [zero-loss.md](../zero-loss.md#chaos).\n\n", command(), machine())
	b.WriteString("| restart by | when, sources | minutes |")
	for _, d := range deeds {
		fmt.Fprintf(&b, " %s |", d.name)
	}
	b.WriteString(" starts by the supervisor | turns acknowledged |")
	columns := len(deeds) + 5
	for _, kind := range losses {
		if !accidents(kind) {
			fmt.Fprintf(&b, " %s |", kind)
			columns++
		}
	}
	b.WriteString("\n|" + strings.Repeat("---|", columns) + "\n")
	sum := total(all)
	for _, r := range append(slices.Clip(all), sum) {
		fmt.Fprintf(&b, "| %s | %s | %.1f |", r.Mode, strings.TrimSpace(r.Date+" "+r.Version), r.Minutes)
		for _, d := range deeds {
			fmt.Fprintf(&b, " %d |", r.Done[d.name])
		}
		fmt.Fprintf(&b, " %d | %d |", r.Starts, r.Acked)
		for _, kind := range losses {
			if !accidents(kind) {
				fmt.Fprintf(&b, " %d |", r.Seen[kind])
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nWhat else clients saw in all, as they must of a gateway that is killed: answered %d", sum.Seen[answered])
	for _, kind := range losses {
		if accidents(kind) {
			fmt.Fprintf(&b, ", %s %d", kind, sum.Seen[kind])
		}
	}
	fmt.Fprintf(&b, "; %d streams that came back.\n", sum.Resumed)
	for _, r := range all {
		if !r.Disk {
			fmt.Fprintf(&b, "\nBy %s on %s the disk was never full: only root can give the gateway one of its own.\n", r.Mode, r.Date)
		}
		if r.FirstFault != "" {
			fmt.Fprintf(&b, "\nBy %s on %s, the first: `%s`\n", r.Mode, r.Date, strings.ReplaceAll(r.FirstFault, "`", "'"))
		}
	}
	return b.String()
}
