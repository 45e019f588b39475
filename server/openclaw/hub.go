package openclaw

import (
	"container/list"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"gateway/fsm"
	"gateway/server/api"
)

// Options is what a hub needs for the whole life of the process image.
type Options struct {
	Lifecycle  Lifecycle
	Version    string
	Retirement *api.Retirement
	Log        zerolog.Logger
}

// Lifecycle is the machine as clients of this protocol see it.
type Lifecycle interface {
	// Snapshot is the published state. It never waits.
	Snapshot() fsm.Snapshot
	// Request asks the machine for an event and returns its decision.
	Request(ctx context.Context, r fsm.Request) (fsm.Decision, error)
}

// Hub knows the connections of this process, and the runs that are told to them.
type Hub struct {
	opts    Options
	began   time.Time
	ctx     context.Context // ends what is told
	cancel  context.CancelFunc
	follows sync.WaitGroup
	census  census

	taking  sync.Mutex
	takenUp *api.Backend // whose unfinished runs are told

	mu        sync.Mutex
	all       map[*socket]bool  // whether it has connected
	runs      map[followed]bool // that are told, to all or to one
	strangers int               // connections that have not connected
	// The turns of the runs that were asked for here, by run, lately and a while ago: what agent.wait need not look for.
	lately, before map[string]string
	closed         bool
	changed        chan struct{} // closed when a connection or a run has ended
	version        int           // of the presence
	telling        bool          // the presence, in a moment
	joiners        list.List     // of *socket: those that have connected, the newest first
	readers        []*socket     // who may read, once it has been asked for
	gathering      bool          // events wait for the end of gatherTime
	wokeAt         time.Time     // when all were last woken
	toldAt         time.Time     // when all were told the health
}

func New(opts Options) *Hub {
	h := &Hub{opts: opts, began: time.Now(), all: map[*socket]bool{}, runs: map[followed]bool{}, lately: map[string]string{}, changed: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

func (h *Hub) enter(c *socket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.all) >= maxSockets || h.strangers >= maxStrangers {
		return false
	}
	h.all[c] = false
	h.strangers++
	return true
}

// joined greets the client and tells it everything from then on.
func (h *Hub) joined(c *socket, greet func()) {
	h.mu.Lock()
	greet()
	h.all[c], h.readers = true, nil
	c.place = h.joiners.PushFront(c)
	h.strangers--
	h.version++
	h.mu.Unlock()
	h.tellPresence()
}

func (h *Hub) leave(c *socket) {
	h.mu.Lock()
	was, there := h.all[c]
	if !there {
		h.mu.Unlock()
		return
	}
	delete(h.all, c)
	h.readers = nil
	if was {
		h.joiners.Remove(c.place)
		h.version++
	} else {
		h.strangers--
	}
	h.wakeLocked()
	h.mu.Unlock()
	if was {
		h.tellPresence()
	}
}

// connected are the clients that may read.
func (h *Hub) connected() []*socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers = []*socket{}
		for c, joined := range h.all {
			if joined && c.peer.may(api.Read) {
				h.readers = append(h.readers, c)
			}
		}
	}
	return h.readers
}

// gatherTime is how long events are gathered, so that each client gets them with one write. One that comes after a
// pause is told at once.
const gatherTime = 5 * time.Millisecond

// tell sends an event to everybody who may read. It is encoded once for all.
func (h *Hub) tell(name string, payload any) {
	all := h.connected()
	if len(all) == 0 {
		return
	}
	text := all[0].encode(name, payload)
	if text == nil {
		return
	}
	for _, c := range all {
		c.queue(text, true, false)
	}
	h.gather()
}

// tellRun sends an event of a run to everybody who may read, under the names that each knows session and agent by. It is
// encoded once for all who know them by the same.
func (h *Hub) tellRun(r run, name string, payload map[string]any) {
	all := h.connected()
	if len(all) == 0 {
		return
	}
	texts := map[string][]byte{}
	for _, c := range all {
		key, agent := c.names(r.session, r.agent)
		text, encoded := texts[key]
		if !encoded {
			payload["sessionKey"], payload["agentId"] = key, agent
			text = c.encode(name, payload)
			texts[key] = text
		}
		if text == nil {
			return
		}
		c.queueOf(r.turn.ID, text)
	}
	h.gather()
}

// encode is an event without its number, as queue takes it; nil when it cannot be encoded.
func (c *socket) encode(name string, payload any) []byte {
	text, err := json.Marshal(frame{Type: "event", Event: name, Payload: payload})
	if err != nil {
		c.hub.opts.Log.Error().Err(err).Str("event", name).Msg("an event could not be encoded; please report it")
		return nil
	}
	return text[:len(text)-1]
}

// gather has what is in line for all written, now or in a moment.
func (h *Hub) gather() {
	h.mu.Lock()
	if h.gathering {
		h.mu.Unlock()
		return
	}
	wait := gatherTime - time.Since(h.wokeAt)
	h.gathering = wait > 0
	h.mu.Unlock()
	if wait > 0 {
		time.AfterFunc(wait, h.wakeAll)
	} else {
		h.wakeAll()
	}
}

func (h *Hub) wakeAll() {
	h.mu.Lock()
	h.gathering, h.wokeAt = false, time.Now()
	h.mu.Unlock()
	for _, c := range h.connected() {
		c.wake()
	}
}

// Clients is how many clients are connected.
func (h *Hub) Clients() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all) - h.strangers
}

// Retire has goodbye said to all.
func (h *Hub) Retire() {
	h.mu.Lock()
	all := slices.Collect(maps.Keys(h.all))
	h.mu.Unlock()
	for _, c := range all {
		c.leave()
	}
}

func (h *Hub) wakeLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Those who come and go are gathered for presenceInterval, and presencePerClient for each that is there, before all are
// told: many clients are told less often.
const (
	presenceInterval  = 200 * time.Millisecond
	presencePerClient = time.Millisecond
)

func (h *Hub) tellPresence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.telling || h.closed {
		return
	}
	h.telling = true
	time.AfterFunc(presenceInterval+time.Duration(len(h.all))*presencePerClient, func() {
		h.mu.Lock()
		h.telling = false
		h.mu.Unlock()
		h.tell("presence", map[string]any{"presence": h.presence()})
	})
}

// rememberedRuns bounds each of the two maps of runs.
const rememberedRuns = 5000

func (h *Hub) remember(run, turn string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lately) >= rememberedRuns {
		h.lately, h.before = map[string]string{}, h.lately
	}
	h.lately[run] = turn
}

// turnOf is the turn of a run that was asked for here; empty when it is not known.
func (h *Hub) turnOf(run string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if turn, ok := h.lately[run]; ok {
		return turn
	}
	return h.before[run]
}

// quiet waits until no run is told any more, for at most a moment.
func (h *Hub) quiet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, api.LastEvents)
	defer cancel()
	h.until(ctx, func() bool { return len(h.runs) == 0 })
}

// until waits until the condition, which is asked with the lock held, is met by the end of a connection or of a run.
func (h *Hub) until(ctx context.Context, met func() bool) {
	for {
		h.mu.Lock()
		done, changed := met(), h.changed
		h.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Close waits until all connections have ended; when ctx ends first they are cut. Runs are told until their queue
// closes, or until ctx ends.
func (h *Hub) Close(ctx context.Context) {
	defer context.AfterFunc(ctx, h.cancel)()
	defer h.follows.Wait()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	for cut := false; ; {
		h.mu.Lock()
		left, changed := len(h.all), h.changed
		if ctx.Err() != nil && !cut {
			cut = true
			for c := range h.all {
				c.cancel()
			}
		}
		h.mu.Unlock()
		if left == 0 {
			return
		}
		done := ctx.Done()
		if cut {
			done = nil
		}
		select {
		case <-changed:
		case <-done:
		}
	}
}
