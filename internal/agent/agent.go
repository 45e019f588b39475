// Package agent runs turns: by a program, by an OpenAI-compatible endpoint, or by echo.
//
// The invariant: when Run has returned, nothing of the attempt is left running.
package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"gateway/internal/advice"
	"gateway/internal/config"
	"gateway/queue"
)

// runner is one kind of agent.
type runner interface {
	run(ctx context.Context, w queue.Work) error
}

// Set is the configured agents. It is a [queue.Runner].
type Set struct {
	runners  map[string]runner
	timeouts map[string]time.Duration

	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when running falls to 0; nil while nobody waits
}

// New prepares the agents; it starts nothing and connects to nothing. A command finds the gateway that it runs
// in through stateDir.
func New(agents map[string]config.Agent, stateDir string, log zerolog.Logger) (*Set, error) {
	s := &Set{runners: make(map[string]runner), timeouts: make(map[string]time.Duration)}
	for name, a := range agents {
		timeout := a.Timeout
		if timeout == 0 {
			timeout = config.DefaultAgentTimeout
		}
		s.timeouts[name] = timeout
		switch a.Type {
		case "echo":
			s.runners[name] = echo{}
		case "command":
			s.runners[name] = &command{argv: a.Command, dir: a.Dir, env: a.Env, stateDir: stateDir, log: log}
		case "openai":
			s.runners[name] = newOpenAI(a)
		default:
			return nil, advice.Errorf("agent: %s: unknown type %q", name, a.Type).Try("echo, command or openai")
		}
	}
	return s, nil
}

// Names lists the agents in order.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.runners)) }

// Run runs one attempt. It returns the context's cause when that ended it.
func (s *Set) Run(ctx context.Context, w queue.Work) error {
	r, ok := s.runners[w.Turn.Agent]
	if !ok {
		return fmt.Errorf("agent %q is not configured. Try: add it and retry the turn; known are %s", w.Turn.Agent, strings.Join(s.Names(), ", "))
	}
	timeout := s.timeouts[w.Turn.Agent]
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("agent %q took longer than its timeout of %s", w.Turn.Agent, timeout))
	defer cancel()
	defer s.count()()
	err := r.run(ctx, w)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// count returns the function that ends what it began to count.
func (s *Set) count() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
		if s.running == 0 && s.idle != nil {
			close(s.idle)
			s.idle = nil
		}
	}
}

// Close waits until no attempt runs any more: no child process is left when it returns nil. The contexts
// of the attempts must have ended.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.running == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle, n := s.idle, s.running
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("agent: %d attempts have not ended: %w", n, context.Cause(ctx))
	}
}

// echo answers with the input.
type echo struct{}

func (echo) run(_ context.Context, w queue.Work) error { return w.Emit(w.Turn.Input) }
