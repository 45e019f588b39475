//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverConnections is what measured best on few cores, as each is a process of the server.
const riverConnections = 20

// riverCooldown is the least time between two fetches. A tenth of a second, the default, is what clients that wait would
// mostly measure; much less fetches so little at once that it costs more than it brings.
const riverCooldown = 30 * time.Millisecond

func riverPeer() contender {
	return contender{
		name:     "River, PostgreSQL",
		measure:  measureRiver,
		keeps:    "`fsync=on`, `synchronous_commit=on`",
		slots:    fmt.Sprintf("1,000 workers, %d connections", riverConnections),
		told:     "`Client.Subscribe` in the process of the workers, after the completion was committed",
		finished: "kept, a day by default",
		order:    "no; [Sequences](https://riverqueue.com/docs/pro/sequences) of River Pro, which is paid, do",
	}
}

type riverJob struct {
	Session string `json:"session"`
	Input   string `json:"input"`
}

func (riverJob) Kind() string { return "echo" }

func measureRiver(ctx context.Context, l load, folder string) (rate float64, err error) {
	url, stop, err := startPostgres(ctx, folder)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pool, err := riverPool(ctx, url)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	client, err := riverClient(ctx, pool, l.clients)
	if err != nil {
		return 0, err
	}
	told := newAnswers(l.clients)
	// Events that find no room are dropped; there are never more than clients.
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: 10 * l.clients, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	defer cancel()
	go func() {
		for e := range events {
			var job riverJob
			if json.Unmarshal(e.Job.EncodedArgs, &job) == nil {
				told.tell(job.Session)
			}
		}
	}()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = errors.Join(err, client.StopAndCancel(ctx))
	}()
	return l.run(ctx, func(ctx context.Context, session string) error {
		if _, err := client.Insert(ctx, riverJob{Session: session, Input: input}, nil); err != nil {
			return err
		}
		return told.wait(ctx, session)
	})
}

func riverPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns, config.MinConns = riverConnections, riverConnections
	return pgxpool.NewWithConfig(ctx, config)
}

func riverClient(ctx context.Context, pool *pgxpool.Pool, slots int) (*river.Client[pgx.Tx], error) {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(context.Context, *river.Job[riverJob]) error { return nil }))
	return river.NewClient(driver, &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: slots}},
		Workers:       workers,
		FetchCooldown: riverCooldown, FetchPollInterval: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
}
