//go:build linux

package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"gateway/queue"
)

func ours() contender {
	return contender{
		name:     "gateway's `queue/`, SQLite",
		measure:  measureOurs,
		keeps:    "`synchronous=FULL`",
		slots:    "1,000, one lane",
		told:     "`Queue.Wait`, in the process of the queue",
		finished: "kept",
		order:    "yes: one turn of a session at a time, in the order of acceptance",
	}
}

type echo struct{}

func (echo) Run(_ context.Context, w queue.Work) error { return w.Emit(w.Turn.Input) }

func measureOurs(ctx context.Context, l load, folder string) (rate float64, err error) {
	q, err := queue.Open(ctx, filepath.Join(folder, "gateway.db"), queue.Config{
		Runner: echo{}, Lanes: map[string]int{"main": l.clients},
		MaxAttempts: 3, OnInterrupt: queue.RetryTurn, MaxQueued: 1_000_000, MaxQueuedPerSession: 1000,
		MaxOutput: 4 << 20, MaxInput: 1 << 20, Retention: time.Hour, CancelGrace: 5 * time.Second, RetryBackoff: time.Second,
		Log: zerolog.Nop(),
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = errors.Join(err, q.Close(ctx))
	}()
	q.Resume()
	return l.run(ctx, func(ctx context.Context, session string) error {
		t, _, err := q.Accept(ctx, queue.NewTurn{Session: session, Lane: "main", Agent: "echo", Input: input})
		if err == nil {
			_, err = q.Wait(ctx, t.ID)
		}
		return err
	})
}
