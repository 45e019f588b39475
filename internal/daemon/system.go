package daemon

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"syscall"

	"github.com/rs/zerolog"

	"gateway/internal/agent"
	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/internal/process"
	"gateway/internal/statedir"
	"gateway/queue"
	"gateway/server"
	"gateway/server/api"
	"gateway/server/carry"
)

// system is what the effects act on: the operating system, other processes, and the rooms that have a life of their own.
// Tests put others in its place.
type system struct {
	signals   func(deliver func(os.Signal), sigs ...os.Signal) signals
	acquire   func(dir string) (lock, error)
	adopt     func(dir string, guard *os.File) (lock, error)
	activated func() (net.Listener, error)
	listen    func(ctx context.Context, address string) (net.Listener, error)
	socket    func(ctx context.Context, dir string) (net.Listener, error)
	front     func(server.Options) front
	agents    func(c *config.Config, log zerolog.Logger) (agents, error)
	// lanes opens the store. It may take longer than ctx.
	lanes func(ctx context.Context, path string, cfg queue.Config) (lanes, error)
	// candidate decides whether this program could go on with the configuration on disk.
	candidate func(context.Context, config.Source, handoff.Question) (config.Loaded, error)
	// ask starts the executable, reads whether it could take over, and ends it; spawn keeps it.
	ask   func(ctx context.Context, path string, argv []string, q handoff.Question) (version string, warnings []string, err error)
	spawn func(ctx context.Context, path string, argv []string, q handoff.Question) (successor, error)
	// replace replaces the image of this process. It returns only when that failed.
	replace func(path string, argv []string, h handoff.Handover) error
	// shed gives memory back that this process can do without.
	shed func() error
	// room reports whether the state folder has room for a restart.
	room func(dir string) error
}

type signals interface {
	Quiesce() (restore func())
	Close()
}

type lock interface {
	syscall.Conn
	Claim() error
	Describe(statedir.Owner) error
	Release() error
	Leave() error
}

type agents interface {
	queue.Runner
	Close(context.Context) error
}

type lanes interface {
	Resume()
	Fold()
	Drain(ctx context.Context, except string) error
	HandOver(context.Context) error
	Close(context.Context) error
	Crashed() bool
	Stats() queue.Stats
	Lanes() []queue.Lane
}

type front interface {
	Listen(inner net.Listener, local bool) (serve func() error, err error)
	Publish(*api.Backend)
	Resume(carried []carry.Connection)
	Retire(api.Notice)
	Carry(context.Context) []carry.Connection
	CarryNext(context.Context) []carry.Connection
	Adopt(carry.Connection)
	Refuse([]carry.Connection)
	Relay(dial func(context.Context) (net.Conn, error))
	Sealed() int
	Leave(context.Context) error
	Close(context.Context) error
	Stats() server.Stats
}

type successor interface {
	pid() int
	Go(context.Context, handoff.Handover) error
	Serve(last json.RawMessage) error
	Forward([]carry.Connection) error
	Leave()
	Dismiss()
}

// realSystem is the machine that this process runs on.
func realSystem() system {
	return system{
		signals:   func(deliver func(os.Signal), sigs ...os.Signal) signals { return process.Listen(deliver, sigs...) },
		acquire:   func(dir string) (lock, error) { return present[lock](statedir.Acquire(dir)) },
		adopt:     func(dir string, guard *os.File) (lock, error) { return present[lock](statedir.Adopt(dir, guard)) },
		activated: process.Activated,
		listen: func(ctx context.Context, address string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		},
		socket: func(ctx context.Context, dir string) (net.Listener, error) {
			return present[net.Listener](statedir.ListenSocket(ctx, dir))
		},
		front: func(o server.Options) front { return server.New(o) },
		agents: func(c *config.Config, log zerolog.Logger) (agents, error) {
			return present[agents](agent.New(c.Agents, c.StateDir, log))
		},
		lanes: func(ctx context.Context, path string, cfg queue.Config) (lanes, error) {
			return present[lanes](queue.Open(ctx, path, cfg))
		},
		candidate: candidateFor,
		ask:       handoff.Prepare,
		spawn: func(ctx context.Context, path string, argv []string, q handoff.Question) (successor, error) {
			s, err := handoff.Spawn(ctx, path, argv, q)
			if err != nil {
				return nil, err
			}
			return spawned{s}, nil
		},
		replace: handoff.Exec,
		shed:    process.Shed,
		room:    statedir.Room,
	}
}

// spawned is a successor that runs.
type spawned struct{ *handoff.Successor }

func (s spawned) pid() int { return s.PID }

// present keeps a nil pointer from becoming an interface that is not nil.
func present[I any, P any](p *P, err error) (i I, _ error) {
	if err != nil {
		return i, err
	}
	return any(p).(I), nil
}
