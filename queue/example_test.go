package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gateway/queue"
)

// runner makes a [queue.Runner] of a function.
type runner func(ctx context.Context, w queue.Work) error

func (r runner) Run(ctx context.Context, w queue.Work) error { return r(ctx, w) }

// shout is an agent that answers in capitals.
var shout = runner(func(_ context.Context, w queue.Work) error {
	return w.Emit(strings.ToUpper(w.Turn.Input))
})

// config has one lane in which one session runs at a time.
func config(agent queue.Runner) queue.Config {
	return queue.Config{
		Runner: agent, Lanes: map[string]int{"main": 1},
		MaxAttempts: 3, OnInterrupt: queue.RetryTurn, RetryBackoff: time.Millisecond,
		MaxQueued: 100, MaxQueuedPerSession: 10, MaxInput: 1 << 20, MaxOutput: 1 << 20,
		Retention: time.Hour, CancelGrace: time.Second,
	}
}

// store is the path of a store that does not exist yet, and what removes it.
func store() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "queue")
	must(err)
	return filepath.Join(dir, "gateway.db"), func() { must(os.RemoveAll(dir)) }
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A queue is opened on a file, accepts turns, and starts them once it is resumed.
func Example() {
	ctx := context.Background()
	path, remove := store()
	defer remove()

	q, err := queue.Open(ctx, path, config(shout))
	must(err)
	turn, _, err := q.Accept(ctx, queue.NewTurn{Session: "s", Lane: "main", Agent: "shout", Input: "hello"})
	must(err)
	fmt.Println(turn.Status) // it is on disk

	q.Resume()
	turn, err = q.Wait(ctx, turn.ID)
	must(err)
	fmt.Println(turn.Status, turn.Output)
	must(q.Close(ctx))
	// Output:
	// queued
	// completed HELLO
}

// A client that lost the answer sends the same key again, and gets the turn that it made.
func ExampleQueue_Accept_again() {
	ctx := context.Background()
	path, remove := store()
	defer remove()
	q, err := queue.Open(ctx, path, config(shout))
	must(err)

	order := queue.NewTurn{Session: "s", Lane: "main", Agent: "shout", Input: "one pizza", IdempotencyKey: "order 17"}
	first, created, err := q.Accept(ctx, order)
	fmt.Println(created, err)
	again, created, err := q.Accept(ctx, order)
	fmt.Println(created, err, again.ID == first.ID)

	order.Input = "two pizzas"
	_, _, err = q.Accept(ctx, order)
	fmt.Println(errors.Is(err, queue.ErrKeyReused))
	must(q.Close(ctx))
	// Output:
	// true <nil>
	// false <nil> true
	// true
}

// With the mode collect the agent gets all that gathered while it was busy as one input.
func ExampleQueue_Accept_collect() {
	ctx := context.Background()
	path, remove := store()
	defer remove()
	q, err := queue.Open(ctx, path, config(shout))
	must(err)

	var turn queue.Turn
	for _, input := range []string{"are you there?", "hello?"} {
		turn, _, err = q.Accept(ctx, queue.NewTurn{
			Session: "s", Lane: "main", Agent: "shout", Input: input, Mode: queue.Collect,
		})
		must(err)
	}
	q.Resume()
	turn, err = q.Wait(ctx, turn.ID)
	must(err)
	fmt.Println(turn.Output)
	must(q.Close(ctx))
	// Output:
	// ARE YOU THERE?
	//
	// HELLO?
}

// Whoever follows a turn sees what is on disk first, and then each event as it comes.
func ExampleQueue_Follow() {
	ctx := context.Background()
	path, remove := store()
	defer remove()
	q, err := queue.Open(ctx, path, config(shout))
	must(err)
	q.Resume()
	turn, _, err := q.Accept(ctx, queue.NewTurn{Session: "s", Lane: "main", Agent: "shout", Input: "hello"})
	must(err)

	for e, err := range q.Follow(ctx, turn.ID, 0) {
		must(err)
		fmt.Printf("%d %s %q\n", e.Seq, e.Type, e.Text)
	}
	must(q.Close(ctx))
	// Output:
	// 1 started ""
	// 2 delta "HELLO"
	// 3 completed ""
}

// An error that may go away by itself is tried again, at the head of the session, while attempts are left.
func ExampleTemporary() {
	ctx := context.Background()
	path, remove := store()
	defer remove()
	q, err := queue.Open(ctx, path, config(runner(func(_ context.Context, w queue.Work) error {
		if w.Turn.Attempt < 2 {
			return queue.Temporary(errors.New("the endpoint is overloaded"), 0)
		}
		return w.Emit("done")
	})))
	must(err)
	q.Resume()
	turn, _, err := q.Accept(ctx, queue.NewTurn{Session: "s", Lane: "main", Agent: "flaky", Input: "hello"})
	must(err)
	for e, err := range q.Follow(ctx, turn.ID, 0) {
		must(err)
		fmt.Printf("attempt %d: %s %q\n", e.Attempt, e.Type, e.Text)
	}
	must(q.Close(ctx))
	// Output:
	// attempt 1: started ""
	// attempt 1: interrupted "the endpoint is overloaded"
	// attempt 2: started ""
	// attempt 2: delta "done"
	// attempt 2: completed ""
}

// A turn that is interrupted by the end of a queue runs again in the next one on the same store. That costs a run and no
// attempt.
func ExampleQueue_Close() {
	ctx := context.Background()
	path, remove := store()
	defer remove()
	started := make(chan struct{}, 2)
	slow := config(runner(func(ctx context.Context, w queue.Work) error {
		started <- struct{}{}
		if w.Turn.Runs == 1 {
			<-ctx.Done()
			return context.Cause(ctx) // queue.ErrInterrupted
		}
		return w.Emit("done")
	}))

	q, err := queue.Open(ctx, path, slow)
	must(err)
	q.Resume()
	turn, _, err := q.Accept(ctx, queue.NewTurn{Session: "s", Lane: "main", Agent: "slow", Input: "hello"})
	must(err)
	<-started
	must(q.Close(ctx))

	q, err = queue.Open(ctx, path, slow)
	must(err)
	q.Resume()
	turn, err = q.Wait(ctx, turn.ID)
	must(err)
	fmt.Printf("%s: %s, attempt %d, run %d\n", turn.Status, turn.Output, turn.Attempt, turn.Runs)
	must(q.Close(ctx))
	// Output:
	// completed: done, attempt 1, run 2
}

// A drain lets what runs finish, and starts nothing else.
func ExampleQueue_Drain() {
	ctx := context.Background()
	path, remove := store()
	defer remove()
	started, finish := make(chan struct{}), make(chan struct{})
	q, err := queue.Open(ctx, path, config(runner(func(_ context.Context, w queue.Work) error {
		started <- struct{}{}
		<-finish
		return w.Emit("done")
	})))
	must(err)
	q.Resume()
	var ids []string
	for _, session := range []string{"a", "b"} {
		turn, _, err := q.Accept(ctx, queue.NewTurn{Session: session, Lane: "main", Agent: "slow", Input: "hello"})
		must(err)
		ids = append(ids, turn.ID)
	}
	<-started

	hurry, cancel := context.WithTimeoutCause(ctx, time.Millisecond, errors.New("too late"))
	defer cancel()
	fmt.Println(q.Drain(hurry, ""))
	close(finish)
	fmt.Println(q.Drain(ctx, ""))
	for _, id := range ids {
		turn, err := q.Turn(ctx, id)
		must(err)
		fmt.Println(turn.Status)
	}
	must(q.Close(ctx))
	// Output:
	// too late
	// <nil>
	// completed
	// queued
}
