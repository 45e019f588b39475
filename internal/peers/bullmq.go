//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// bullmqSlots measured best, twice as fast as a slot for each client.
const bullmqSlots = 100

func bullmqPeer(appendfsync string) contender {
	return contender{
		name: "BullMQ, Redis, " + appendfsync,
		measure: func(ctx context.Context, l load, folder string) (float64, error) {
			return measureBullMQ(ctx, l, folder, appendfsync)
		},
		keeps:    "`appendonly yes`, `appendfsync " + appendfsync + "`",
		slots:    fmt.Sprintf("concurrency %d, one worker; more was slower", bullmqSlots),
		told:     "the event `completed` of the worker, in the process of the clients, after Redis has answered",
		finished: "removed, as set",
		order:    "no: jobs [start in order](https://docs.bullmq.io/guide/jobs/fifo), by key only with [groups limited to one at a time](https://docs.bullmq.io/bullmq-pro/groups/concurrency) of BullMQ Pro, which is paid",
		mayLose:  appendfsync != "always",
	}
}

// measureBullMQ runs clients and workers in Node: bullmq.mjs does what load.run does.
func measureBullMQ(ctx context.Context, l load, folder, appendfsync string) (rate float64, err error) {
	socket, stop, err := startRedis(ctx, folder, appendfsync)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	ctx, cancel := context.WithTimeoutCause(ctx, l.warm+l.window+patience, errNotTold)
	defer cancel()
	var said, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", "bullmq.mjs", socket, strconv.Itoa(l.clients), input, strconv.Itoa(bullmqSlots),
		strconv.FormatInt(l.warm.Milliseconds(), 10), strconv.FormatInt(l.window.Milliseconds(), 10))
	cmd.Stdout, cmd.Stderr = &said, &complaint
	cmd.WaitDelay = patience
	// Ctrl-C is for this process, which ends the clients before their server; they do not outlive it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := finish(cmd); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, fmt.Errorf("node bullmq.mjs: %w; try npm ci --ignore-scripts in internal/peers\n%s", err, complaint.Bytes())
	}
	var result struct{ Completed, Seconds float64 }
	if err := json.Unmarshal(said.Bytes(), &result); err != nil {
		return 0, fmt.Errorf("bullmq.mjs said %q: %w", said.Bytes(), err)
	}
	return result.Completed / result.Seconds, nil
}

// installed is the version of a package of Node, as it is installed.
func installed(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("node_modules", name, "package.json"))
	if err != nil {
		return "", fmt.Errorf("%s is not installed; try npm ci --ignore-scripts in internal/peers, and run from there: %w", name, err)
	}
	var p struct{ Version string }
	return p.Version, json.Unmarshal(text, &p)
}
