//go:build linux

// Command peers measures the queue of the gateway beside what a user would pick instead, in one run on one machine,
// and prints the page of it.
//
//	go run . -write ../../docs/bench/peers.md
//
// The invariant: every row answers the same question. As many clients, each with a session of its own, send a job,
// wait until they are told that it is completed, and only then send the next.
//
// It is a module of its own, so that the program needs none of what it is measured against.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// contender is one row of the page.
type contender struct {
	name string
	// folder of its own, empty at first, is where it keeps what it writes.
	measure func(ctx context.Context, l load, folder string) (jobsPerSecond float64, err error)
	// What the page says of it.
	keeps, slots, told, finished, order string
	// mayLose marks a row that does not promise what the others do.
	mayLose bool
}

func contenders() []contender {
	return []contender{ours(), riverPeer(), asynqPeer("always"), bullmqPeer("always"), asynqPeer("everysec"), bullmqPeer("everysec")}
}

func run(ctx context.Context) error {
	l := load{}
	flag.IntVar(&l.clients, "clients", 1000, "how many clients wait for their jobs at once")
	flag.DurationVar(&l.warm, "warm", 2*time.Second, "how long to run before counting")
	flag.DurationVar(&l.window, "window", 8*time.Second, "how long to count")
	rounds := flag.Int("rounds", 3, "how often to measure each")
	only := flag.String("only", "", "measure only rows whose name contains this, and make no page")
	page := flag.String("write", "", "also write the page to this file")
	flag.Parse()
	if *only != "" && *page != "" {
		return errors.New("a page has every row; try -write without -only")
	}
	if flag.NArg() > 0 || l.clients < 1 || l.window <= 0 || *rounds < 1 {
		return errors.New("at least one client, one round and some time to count are needed; try -help")
	}

	rows := slices.DeleteFunc(contenders(), func(c contender) bool { return !strings.Contains(c.name, *only) })
	if len(rows) == 0 {
		return fmt.Errorf("no row is called %q; try -only asynq", *only)
	}
	// What is missing shows before minutes were spent.
	about, err := lookAround(ctx)
	if err != nil {
		return err
	}
	measured, err := measureAll(ctx, l, rows, *rounds)
	if err != nil || *only != "" {
		return err
	}
	var text bytes.Buffer
	if err := report(&text, l, *rounds, about, rows, measured); err != nil {
		return err
	}
	if *page != "" {
		if err := os.WriteFile(*page, text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("the page cannot be written; try another -write: %w", err)
		}
	}
	_, err = text.WriteTo(os.Stdout)
	return err
}

// measureAll measures each row in each round. Every other round goes backwards: what a shared machine does in the
// meantime should not always meet the same row.
func measureAll(ctx context.Context, l load, rows []contender, rounds int) ([][]float64, error) {
	measured := make([][]float64, len(rows))
	for round := range rounds {
		for i := range rows {
			if round%2 == 1 {
				i = len(rows) - 1 - i
			}
			rate, err := measureOne(ctx, l, rows[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rows[i].name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d, %s: %.0f jobs/s\n", round+1, rounds, rows[i].name, rate)
			measured[i] = append(measured[i], rate)
		}
	}
	for _, rates := range measured {
		slices.Sort(rates)
	}
	return measured, nil
}

// measureOne starts from nothing, so that no measurement carries the weight of those before it.
func measureOne(ctx context.Context, l load, c contender) (rate float64, err error) {
	folder, err := privateFolder()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	ctx, cancel := context.WithTimeout(ctx, l.warm+l.window+3*patience)
	defer cancel()
	return c.measure(ctx, l, folder)
}
