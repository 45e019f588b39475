//go:build linux

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// input is what every job carries, beside the name of its session.
const input = "hello"

// patience is how long anything but the measuring itself may take: a server to start or to stop, a job to be
// completed once no new ones are sent.
const patience = 30 * time.Second

var errNotTold = errors.New("a client was not told of its job in time; try -clients 100, or a machine that does less")

// load is what is asked of each row.
type load struct {
	clients      int
	warm, window time.Duration
}

// run has each client call full, which returns once the client was told that its job is completed, again and again.
// A job that nobody is told of is an error, not a slow job.
func (l load) run(ctx context.Context, full func(ctx context.Context, session string) error) (float64, error) {
	within, cancel := context.WithTimeoutCause(ctx, l.warm+l.window+patience, errNotTold)
	defer cancel()
	var completed atomic.Int64
	var enough atomic.Bool
	clients, ctx := errgroup.WithContext(within)
	for _, session := range sessionNames(l.clients) {
		clients.Go(func() error {
			for !enough.Load() {
				if err := full(ctx, session); err != nil {
					return err
				}
				completed.Add(1)
			}
			return nil
		})
	}
	rate, err := l.count(ctx, &completed)
	enough.Store(true)
	switch ended := clients.Wait(); {
	case within.Err() != nil:
		return 0, context.Cause(within)
	case ended != nil:
		return 0, ended
	}
	return rate, err
}

func (l load) count(ctx context.Context, completed *atomic.Int64) (float64, error) {
	if err := sleep(ctx, l.warm); err != nil {
		return 0, err
	}
	began, before := time.Now(), completed.Load()
	if err := sleep(ctx, l.window); err != nil {
		return 0, err
	}
	return float64(completed.Load()-before) / time.Since(began).Seconds(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sessionNames are in no order, the same at every run: ascending names would flatter an index.
func sessionNames(n int) []string {
	names := make([]string, n)
	for at, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		names[at] = "session-" + strconv.Itoa(i)
	}
	return names
}

// answers is how a client is told, by its session: a client has one job at a time.
type answers map[string]chan struct{}

func newAnswers(clients int) answers {
	a := answers{}
	for _, session := range sessionNames(clients) {
		a[session] = make(chan struct{}, 1)
	}
	return a
}

func (a answers) tell(session string) {
	if told, ok := a[session]; ok {
		told <- struct{}{}
	}
}

func (a answers) wait(ctx context.Context, session string) error {
	select {
	case <-a[session]:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
