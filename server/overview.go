package server

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/tmaxmax/go-sse"

	"gateway/queue"
	"gateway/server/api"
)

const (
	// feedInterval is how often watchers are told what has changed, at most.
	feedInterval = 250 * time.Millisecond
	// feedRate is how many bytes of lanes a second one watcher gets: when a thousand lanes are busy, each is told of
	// less often.
	feedRate = 256 << 10
	// feedTurns is how many turns one event tells of.
	feedTurns = 200
	// feedRunning is how many turns that run are told of.
	feedRunning = 20
	// feedBehind is how many events a watcher may be behind. Then it is cut off, and comes back.
	feedBehind = 64
)

// overview tells everyone who watches the gateway the same. What has changed is looked up and encoded once, however many
// watch, and not at all while nobody does.
type overview struct {
	lifecycle Lifecycle
	backend   func() *api.Backend
	log       zerolog.Logger

	mu       sync.Mutex
	watchers map[chan []byte]struct{}
	stop     chan struct{} // ends the producer; nil while there is none
	done     chan struct{} // closed once the producer has ended

	// What the watchers were told.
	status []byte
	from   *api.Backend
	change uint64 // the number of the newest one
	lanes  []queue.Lane
	all    []byte    // the event with every lane; nil until somebody needs it
	runs   []byte    // the event with what runs
	stale  bool      // lanes, and what runs, may have changed
	due    time.Time // when the watchers may be told of them again
}

// laneNews is the event `lanes`: those that have changed, or all there are.
type laneNews struct {
	Lanes []queue.Lane `json:"lanes"`
	All   bool         `json:"all"`
}

// runningNews is the event `running`: what a restart would wait for, the longest first. More is how many others run.
type runningNews struct {
	Turns []runningTurn `json:"turns"`
	More  int           `json:"more"`
}

type runningTurn struct {
	ID        string     `json:"id"`
	Session   string     `json:"session"`
	Lane      string     `json:"lane"`
	Agent     string     `json:"agent"`
	StartedAt *time.Time `json:"started_at"`
}

// turnNews is the event `turns`: what turns have become, each once. More says that there are others.
type turnNews struct {
	Turns []queue.Change `json:"turns"`
	More  bool           `json:"more"`
}

func newOverview(l Lifecycle, backend func() *api.Backend, log zerolog.Logger) *overview {
	return &overview{lifecycle: l, backend: backend, log: log, watchers: make(map[chan []byte]struct{})}
}

// join returns the events that say how things are, and a channel for those that say what changes. It is closed when
// its reader is too far behind.
func (f *overview) join() (now []byte, news chan []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refreshLocked()
	news = make(chan []byte, feedBehind)
	f.watchers[news] = struct{}{}
	if f.stop == nil {
		f.stop, f.done = make(chan struct{}), make(chan struct{})
		go f.run(f.stop, f.done)
	}
	if f.all == nil {
		f.all = f.event("lanes", laneNews{f.lanes, true})
	}
	return slices.Concat(f.event("status", json.RawMessage(f.status)), f.all, f.runs), news
}

// leave ends what join began. The last one ends the producer.
func (f *overview) leave(news chan []byte) {
	f.mu.Lock()
	delete(f.watchers, news)
	if len(f.watchers) > 0 || f.stop == nil {
		f.mu.Unlock()
		return
	}
	done := f.done
	close(f.stop)
	f.stop = nil
	f.mu.Unlock()
	<-done
}

// run is the producer.
func (f *overview) run(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(feedInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.mu.Lock()
			f.refreshLocked()
			f.mu.Unlock()
		case <-stop:
			return
		}
	}
}

// refreshLocked tells the watchers what has changed.
func (f *overview) refreshLocked() {
	if s := f.lifecycle.Status(); !bytes.Equal(s, f.status) {
		f.status = s
		f.tellLocked("status", s)
	}
	b := f.backend()
	if b == nil {
		return
	}
	next := b != f.from // nothing is known of another generation
	if next {
		f.from, f.change = b, 0
	}
	changed, newest, missed := b.Queue.Changes(f.change)
	if newest != f.change || next {
		f.stale, f.change = true, newest
		if turns := latest(changed); next || len(turns) > 0 {
			more := next || missed || len(turns) > feedTurns
			f.tellLocked("turns", turnNews{turns[max(0, len(turns)-feedTurns):], more})
		}
	}
	if now := time.Now(); f.stale && (next || !now.Before(f.due)) {
		f.stale = false
		n := f.tellLanesLocked(b.Queue.Lanes(), next)
		if runs := f.event("running", running(b.Queue.Active())); !bytes.Equal(runs, f.runs) {
			f.runs = runs
			n += f.passLocked(runs)
		}
		f.due = now.Add(time.Duration(n) * time.Second / feedRate)
	}
}

// tellLanesLocked returns how many bytes it told each watcher.
func (f *overview) tellLanesLocked(lanes []queue.Lane, all bool) int {
	known := make(map[string]queue.Lane, len(f.lanes))
	for _, l := range f.lanes {
		known[l.Name] = l
	}
	news := laneNews{Lanes: []queue.Lane{}}
	for _, l := range lanes {
		if before, ok := known[l.Name]; !ok || !same(before, l) {
			news.Lanes = append(news.Lanes, l)
		}
		delete(known, l.Name)
	}
	if all || len(known) > 0 { // some are no more
		news = laneNews{append([]queue.Lane{}, lanes...), true}
	}
	f.lanes = lanes
	if len(news.Lanes) == 0 && !news.All {
		return 0
	}
	f.all = nil
	return f.tellLocked("lanes", news)
}

func running(active []queue.Turn) runningNews {
	news := runningNews{Turns: []runningTurn{}, More: max(0, len(active)-feedRunning)}
	for _, t := range active[:min(len(active), feedRunning)] {
		news.Turns = append(news.Turns, runningTurn{t.ID, t.Session, t.Lane, t.Agent, t.StartedAt})
	}
	return news
}

func same(a, b queue.Lane) bool {
	at, bt := a.OldestQueuedAt, b.OldestQueuedAt
	a.OldestQueuedAt, b.OldestQueuedAt = nil, nil
	return a == b && (at == nil) == (bt == nil) && (at == nil || at.Equal(*bt))
}

// latest keeps of each turn only what it has become last.
func latest(changed []queue.Change) []queue.Change {
	turns := make([]queue.Change, 0, len(changed))
	seen := make(map[string]bool, len(changed))
	for _, c := range slices.Backward(changed) {
		if !seen[c.Turn] {
			seen[c.Turn] = true
			turns = append(turns, c)
		}
	}
	slices.Reverse(turns)
	return turns
}

func (f *overview) tellLocked(name string, document any) int {
	return f.passLocked(f.event(name, document))
}

// passLocked returns the size of the event. A watcher that has no room for it is cut off.
func (f *overview) passLocked(event []byte) int {
	for news := range f.watchers {
		select {
		case news <- event:
		default:
			close(news)
			delete(f.watchers, news)
		}
	}
	return len(event)
}

// event encodes one event.
func (f *overview) event(name string, document any) []byte {
	data, err := api.EncodeJSON(document)
	if err != nil { // only plain fields; said so that a change cannot fail in silence
		f.log.Error().Err(err).Str("event", name).Msg("an event cannot be encoded")
		return nil
	}
	m := sse.Message{Type: sse.Type(name)}
	m.AppendData(string(bytes.TrimSuffix(data, []byte("\n"))))
	var b bytes.Buffer
	_, _ = m.WriteTo(&b) // a buffer takes everything
	return b.Bytes()
}
