package server

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/internal/described"
	"gateway/internal/puppet"
	"gateway/queue"
	"gateway/server/api"
)

// machine is a lifecycle that a test moves by hand.
type machine struct {
	*stage
	mu       sync.Mutex
	now      fsm.Snapshot
	hops     []fsm.Hop
	newer    chan struct{}
	asked    []fsm.Request
	granted  []string
	decision error
}

func newMachine() *machine {
	m := &machine{stage: newStage(fsm.Open), newer: make(chan struct{})}
	m.move(fsm.Running, true)
	return m
}

// move enters a state, in which turns start or not.
func (m *machine) move(state fsm.State, ready bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hops = append(m.hops, fsm.Hop{Seq: uint64(len(m.hops) + 1), From: m.now.State, To: state})
	m.now = fsm.Snapshot{State: state, BootID: "boot", Ready: ready}
	close(m.newer)
	m.newer = make(chan struct{})
}

func (m *machine) Snapshot() fsm.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *machine) Status() json.RawMessage {
	document, _ := json.Marshal(map[string]any{"state": m.Snapshot().State, "generation": 0})
	return document
}

func (m *machine) Hops(after uint64) ([]fsm.Hop, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]fsm.Hop(nil), m.hops[min(int(after), len(m.hops)):]...), m.newer
}

func (m *machine) Request(_ context.Context, r fsm.Request) (fsm.Decision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r)
	return fsm.Decision{Outcome: fsm.VerdictAccepted, State: fsm.Draining, Message: "restarting", Hop: 2}, m.decision
}

func (m *machine) AuthorizeSignal(actor string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.granted = append(m.granted, actor)
}

// passedOn are the operations whose answers are the machine's; the one of these tests says less than the real one.
var passedOn = []string{"GET /metrics", "GET /v1/events", "GET /v1/lifecycle", "GET /v1/states"}

// gateway is a whole server on a real store and a real socket.
type gateway struct {
	*Server
	t       *testing.T
	url     string
	machine *machine
	agent   *puppet.Agent
	store   string
	backend *api.Backend
	callers []api.Caller // of the next generation
	http    *http.Client
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{
		t: t, machine: newMachine(), store: filepath.Join(t.TempDir(), "store.db"),
		agent: puppet.New(),
	}
	g.http = &http.Client{Transport: &described.Transport{
		API: description(), Inner: &http.Transport{}, Report: func(err error) { t.Error(err) },
		Except: passedOn,
	}}
	g.Server = New(Options{Lifecycle: g.machine, Version: "test", Log: zerolog.Nop()})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g.url = "http://" + ln.Addr().String()
	serve, err := g.Listen(ln, false)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- serve() }()
	g.open()
	g.Resume(nil)
	t.Cleanup(func() {
		g.http.CloseIdleConnections()
		g.Retire(api.Notice{Reason: "gateway stopping"})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, g.backend.Queue.Close(ctx))
		g.machine.set(fsm.Refused)
		require.NoError(t, g.Close(ctx))
		require.NoError(t, <-served)
	})
	return g
}

// open opens the store and lets turns start, the first time and after every restart.
func (g *gateway) open() {
	g.t.Helper()
	q := puppet.OpenQueue(g.t, g.store, g.agent)
	g.backend = &api.Backend{
		Callers: g.callers, Queue: q, Agents: []string{"echo", "other"}, DefaultAgent: "echo", Lanes: []string{"cron", "main"},
		DefaultLane: "main", MaxInput: 1000, Tools: map[string]bool{"echo": true},
		Check: func(context.Context) (api.Successor, error) {
			return api.Successor{Ready: true, Mode: "exec", Version: "next"}, nil
		},
		Config: func() (any, error) {
			return map[string]any{"file": "", "config": map[string]any{"store": "sqlite"}, "origins": map[string]string{}}, nil
		},
	}
	g.Publish(g.backend)
	q.Resume()
}

// restart closes this generation as the machine would, and opens the next.
func (g *gateway) restart() {
	g.t.Helper()
	expected := int64(1500)
	g.machine.set(fsm.Held)
	g.Retire(api.Notice{Reason: "gateway restarting", RestartExpectedMS: &expected})
	require.NoError(g.t, g.backend.Queue.Close(g.t.Context()))
	g.open()
	g.machine.set(fsm.Open)
}

// client is OpenAI's own.
func (g *gateway) client() openai.Client {
	return openai.NewClient(option.WithBaseURL(g.url+"/v1/"), option.WithAPIKey("none"), option.WithMaxRetries(0), option.WithHTTPClient(g.http))
}

// do asks and returns the status, the headers and the whole body. headers are name, value pairs.
func (g *gateway) do(method, path, body string, headers ...string) (int, http.Header, string) {
	g.t.Helper()
	res := g.begin(method, path, body, headers...)
	defer func() { require.NoError(g.t, res.Body.Close()) }()
	raw, err := io.ReadAll(res.Body)
	require.NoError(g.t, err)
	return res.StatusCode, res.Header, string(raw)
}

// begin asks and leaves the body to be read.
func (g *gateway) begin(method, path, body string, headers ...string) *http.Response {
	g.t.Helper()
	r, err := g.request(method, path, body, headers...)
	require.NoError(g.t, err)
	res, err := g.http.Do(r)
	require.NoError(g.t, err)
	return res
}

func (g *gateway) request(method, path, body string, headers ...string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Host = r.Header.Get("Host") // else that of the address
	return r, nil
}

// began waits for the agent to have a turn.
func (g *gateway) began() queue.Turn {
	g.t.Helper()
	return g.agent.Began(g.t)
}

// ended waits for the turn's end.
func (g *gateway) ended(id string) queue.Turn {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	t, err := g.backend.Queue.Wait(ctx, id)
	require.NoError(g.t, err)
	return t
}

// decode reads a document of which a test looks at a few members.
func decode(t *testing.T, body string) map[string]any {
	t.Helper()
	var document map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &document), body)
	return document
}
