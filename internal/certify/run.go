package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// result is what one trial showed.
type result struct {
	title    string
	ours     bool
	restarts int
	took     time.Duration // the whole trial
	stuck    error         // why the trial of another server came to an end early; nil when it did not
	tally    *tally
	times    []time.Duration // from each request for a restart until the next generation served
	gaps     []time.Duration // the longest without an answer, of each restart
	// steady, peak and upgraded are resident memory in bytes: the median between restarts, and the highest of both
	// generations together when they are the same program, and when they are not.
	steady, peak, upgraded int
}

// Memory is watched for a tenth as many further restarts, within these limits; of ours every other one is to another
// binary.
const (
	weighedLeast = 4
	weighedMost  = 30
	weighedApart = time.Second          // so that what is replaced has the memory of a server in use
	weighedEvery = 5 * time.Millisecond // one reading
)

// after is how long after a restart the answers still count for its gap.
const after = 50 * time.Millisecond

// run has the clients send while the subject is restarted again and again, and judges what came of it.
func run(ctx context.Context, t trial, p plan) (r *result, err error) {
	address, err := t.subject.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stopErr := t.subject.stop(); err == nil {
			err = stopErr
		}
	}()
	defer http.DefaultClient.CloseIdleConnections()
	r = &result{title: t.subject.name(), ours: t.ours, tally: newTally()}
	if t.agent == "slow" {
		r.title += ", turns longer than the drain"
	}
	if t.rest > 0 {
		r.title += ", clients that rest"
	}
	load, enough := context.WithCancel(ctx)
	defer enough()
	var clients sync.WaitGroup
	for _, kind := range t.kinds {
		for i := range p.clients {
			c := &client{address: address, path: t.subject.path(), agent: t.agent, rest: t.rest, name: fmt.Sprintf("%s%d", kind, i), t: r.tally}
			clients.Go(func() { kinds[kind](c, load) })
		}
	}
	pause(ctx, time.Second) // until the load is steady
	for range t.restarts {
		began := time.Now()
		if err = t.subject.restart(ctx); err != nil {
			break
		}
		served := time.Now()
		r.restarts++
		r.times = append(r.times, served.Sub(began))
		pause(ctx, max(t.between, after))
		r.gaps = append(r.gaps, r.tally.gap(began, served.Add(after)))
	}
	if err == nil {
		err = r.weigh(load, t)
	}
	enough()
	clients.Wait()
	r.took = time.Since(r.tally.began)
	if err != nil && !t.ours && ctx.Err() == nil {
		r.stuck, err = err, nil // it counts for what it has done
	}
	if err != nil {
		return nil, err
	}
	if g, ok := t.subject.(*gateway); ok {
		return r, g.judge(ctx, r.tally)
	}
	return r, nil
}

// weigh restarts the subject some more while its memory is watched, which holds it up: the kernel stops a process to
// look at it. So the gaps of these restarts do not count; what clients lose does.
func (r *result) weigh(ctx context.Context, t trial) error {
	watched, enough := context.WithCancel(ctx)
	watch := r.watchMemory(watched, t.subject)
	defer func() {
		enough()
		<-watch
	}()
	for range min(max(t.restarts/10, weighedLeast), weighedMost) {
		pause(ctx, weighedApart)
		if err := t.subject.restart(ctx); err != nil {
			return err
		}
		r.restarts++
	}
	pause(ctx, weighedApart)
	return nil
}

// watchMemory samples how much memory all processes of the subject have together.
func (r *result) watchMemory(ctx context.Context, s subject) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var samples []time.Duration // bytes, to have a percentile
		for ctx.Err() == nil {
			pids := s.pids()
			same, n := sameProgram(pids), resident(pids)
			switch {
			case n == 0 || !slices.Equal(pids, s.pids()): // what is shared is another matter once one of them has ended
			case same:
				r.peak = max(r.peak, n)
				samples = append(samples, time.Duration(n))
			default:
				r.upgraded = max(r.upgraded, n)
				samples = append(samples, time.Duration(n))
			}
			pause(ctx, weighedEvery)
		}
		r.steady = int(percentile(samples, 0.5))
	}()
	return done
}
