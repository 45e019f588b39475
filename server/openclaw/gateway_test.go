package openclaw

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gateway/fsm"
	"gateway/internal/puppet"
	"gateway/internal/wire"
	"gateway/server/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a lifecycle that stays in Running.
type running struct{}

func (running) Snapshot() fsm.Snapshot { return fsm.Snapshot{State: fsm.Running, BootID: "boot"} }

func (running) Request(context.Context, fsm.Request) (fsm.Decision, error) {
	return fsm.Decision{Outcome: fsm.VerdictAccepted, State: fsm.Draining, Message: "restarting"}, nil
}

// gateway is a hub on a real store and a real socket, without the server around it.
type gateway struct {
	t          *testing.T
	hub        *Hub
	url        string
	agent      *puppet.Agent
	retirement *api.Retirement
	store      string
	backend    *api.Backend

	mu     sync.Mutex
	serves *api.Backend // what connections that come are served from
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{t: t, agent: puppet.New(), retirement: api.NewRetirement(), store: filepath.Join(t.TempDir(), "store.db")}
	g.hub = New(Options{
		Lifecycle: running{}, Version: "test", Retirement: g.retirement, Log: zerolog.Nop(),
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		b := g.serves
		g.mu.Unlock()
		if err := g.hub.Open(w, r, b, Origin{Host: "127.0.0.1"}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}))
	g.url = s.URL
	g.open()
	t.Cleanup(func() {
		g.Retire(api.Notice{Reason: "gateway stopping"})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, g.backend.Queue.Close(ctx))
		g.hub.Close(ctx)
		s.Close()
	})
	return g
}

// open opens the store and lets turns start, the first time and after every restart.
func (g *gateway) open() {
	g.t.Helper()
	q := puppet.OpenQueue(g.t, g.store, g.agent)
	g.backend = &api.Backend{
		Queue: q, Agents: []string{"echo", "other"}, DefaultAgent: "echo", Lanes: []string{"cron", "main"},
		DefaultLane: "main", MaxInput: 1000,
	}
	g.Publish(g.backend)
	q.Resume()
}

// Publish has b serve the connections that come.
func (g *gateway) Publish(b *api.Backend) {
	g.retirement.Reset()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serves = b
}

// Retire ends the connections.
func (g *gateway) Retire(n api.Notice) {
	g.retirement.Begin(n)
	g.hub.Retire()
}

// restart closes this generation as the daemon does, and opens the next.
func (g *gateway) restart() {
	g.t.Helper()
	expected := int64(1500)
	g.Retire(api.Notice{Reason: "gateway restarting", RestartExpectedMS: &expected})
	require.NoError(g.t, g.backend.Queue.Close(g.t.Context()))
	g.open()
}

func (g *gateway) dial(options *websocket.DialOptions) (w *wire.Client, status int, err error) {
	g.t.Helper()
	return wire.Dial(g.t, g.url, options)
}

// connect is a client that was greeted.
func (g *gateway) connect() *wire.Client {
	g.t.Helper()
	return wire.Connect(g.t, g.url)
}

// began waits for the agent to have a turn.
func (g *gateway) began() { g.agent.Began(g.t) }

// staff are three clients, each with one scope, besides who may do everything.
func staff() []api.Caller {
	return []api.Caller{
		api.NewCaller("", "token of all", api.Admin), api.NewCaller("monitor", "token that reads", api.Read),
		api.NewCaller("ci", "token that writes", api.Write), api.NewCaller("ops", "token that administers", api.ScopeOf("read", "admin")),
	}
}
