//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// asynqServers share the worker slots: one asynq server takes its tasks one after another, each a round trip and,
// with appendfsync always, a sync. So many take at once; 16 measured half as fast, 250 slower again.
const asynqServers = 100

func asynqPeer(appendfsync string) contender {
	return contender{
		name: "asynq, Redis, " + appendfsync,
		measure: func(ctx context.Context, l load, folder string) (float64, error) {
			return measureAsynq(ctx, l, folder, appendfsync)
		},
		keeps:    "`appendonly yes`, `appendfsync " + appendfsync + "`",
		slots:    fmt.Sprintf("1,000, %d servers in one process", asynqServers),
		told:     "by a hook in its Redis client, when Redis has answered the script that completes the task; asynq itself has only polling",
		finished: "removed, by default",
		order:    "no: [no guarantees](https://github.com/hibiken/asynq/issues/871), [asked for](https://github.com/hibiken/asynq/issues/1090)",
		mayLose:  appendfsync != "always",
	}
}

type asynqJob struct {
	Session string `json:"session"`
	Input   string `json:"input"`
}

func measureAsynq(ctx context.Context, l load, folder, appendfsync string) (rate float64, err error) {
	socket, stop, err := startRedis(ctx, folder, appendfsync)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	told := newAnswers(l.clients)
	slots := max(1, l.clients/asynqServers)
	for range asynqServers {
		server := asynq.NewServer(asynqWorkers{socket: socket, slots: slots, told: told}, asynq.Config{
			Concurrency: slots,
			// A second by default: clients that wait would mostly measure this.
			TaskCheckInterval: time.Millisecond,
			LogLevel:          asynq.ErrorLevel,
			ShutdownTimeout:   time.Second,
		})
		echo := asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })
		if err := server.Start(echo); err != nil {
			return 0, err
		}
		defer server.Shutdown()
	}
	client := asynq.NewClient(asynq.RedisClientOpt{Network: "unix", Addr: socket, PoolSize: l.clients})
	defer func() { err = errors.Join(err, client.Close()) }()
	var n atomic.Int64
	return l.run(ctx, func(ctx context.Context, session string) error {
		payload, err := json.Marshal(asynqJob{Session: session, Input: input})
		if err != nil {
			return err
		}
		id := session + "/" + strconv.FormatInt(n.Add(1), 10)
		if _, err := client.EnqueueContext(ctx, asynq.NewTask("echo", payload), asynq.TaskID(id)); err != nil {
			return err
		}
		return told.wait(ctx, session)
	})
}

// asynqWorkers makes the Redis client of an asynq server.
type asynqWorkers struct {
	socket string
	slots  int
	told   answers
}

func (w asynqWorkers) MakeRedisClient() any {
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: w.socket, PoolSize: w.slots + 2})
	c.AddHook(completion{w.told})
	return c
}

// completion tells clients of their tasks: the script that completes a task is the only one that workers run with
// the key of a single task, as none fails here.
type completion struct{ told answers }

func (completion) DialHook(next redis.DialHook) redis.DialHook { return next }

func (completion) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c completion) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if session, ok := completedBy(cmd); ok && err == nil {
			c.told.tell(session)
		}
		return err
	}
}

func completedBy(cmd redis.Cmder) (session string, ok bool) {
	if name := cmd.Name(); name != "evalsha" && name != "eval" {
		return "", false
	}
	for _, arg := range cmd.Args() {
		key, _ := arg.(string)
		if id, found := strings.CutPrefix(key, "asynq:{default}:t:"); found && id != "" {
			session, _, ok = strings.Cut(id, "/")
			return session, ok
		}
	}
	return "", false
}
