package fsm

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Hop is one recorded step of the machine.
type Hop struct {
	// Seq counts from 1 and goes on across process images that hand over.
	Seq        uint64    `json:"seq"`
	BootID     string    `json:"boot_id"`
	Generation int       `json:"generation"`
	Time       time.Time `json:"time"`
	From       State     `json:"from"`  // empty for the first hop of a process
	Event      Event     `json:"event"` // empty for the first hop of a process
	To         State     `json:"to"`
	Reason     string    `json:"reason"`
	Actor      string    `json:"actor"`
	// LastedMS is how long the state before it lasted, in milliseconds; 0 for the first hop of a process.
	LastedMS float64 `json:"lasted_ms"`
}

// Counters count what did not move the machine.
type Counters struct {
	Late       uint64 `json:"late"`       // outcomes of a state that was left
	Ignored    uint64 `json:"ignored"`    // requests and outcomes that change nothing
	Impossible uint64 `json:"impossible"` // must stay 0
}

// Snapshot is the machine at one moment. Reading it never waits for the machine.
type Snapshot struct {
	State State     `json:"state"`
	Since time.Time `json:"since"`
	// Hop is the sequence of the hop that led here.
	Hop        uint64 `json:"hop"`
	BootID     string `json:"boot_id"`
	Generation int    `json:"generation"`
	// Intent is stop or restart while one is under way; empty otherwise.
	Intent Intent `json:"intent"`
	// Exit is the process's exit code as far as it is decided.
	Exit ExitCode `json:"exit"`
	// Deadline is when the state ends by itself; zero for never.
	Deadline time.Time `json:"deadline,omitzero"`
	// Ready reports whether queued turns are started: the gateway serves in full. It tells the two halves of Draining
	// apart, which lie before and after the event prepared.
	Ready bool `json:"ready"`
	// Admission is what happens to a new turn now.
	Admission Admission `json:"admission"`
	// Postponed lists the events that wait for another state.
	Postponed []Event  `json:"postponed,omitempty"`
	Counters  Counters `json:"counters"`
}

// Snapshot returns the latest published state.
func (m *Machine) Snapshot() Snapshot { return *m.snap.Load() }

func (m *Machine) publish() {
	spec := m.states[m.state]
	s := Snapshot{
		State: m.state, Since: m.since, Hop: m.history.last(), BootID: m.cfg.BootID, Generation: m.generation,
		Intent: m.intent, Exit: m.exit, Ready: m.starts, Admission: spec.Admission, Counters: m.counters, Deadline: m.clock.until.at(),
	}
	if s.Admission == Held && m.intent == IntentStop {
		s.Admission = Refused
	}
	for _, in := range m.postponed {
		if in.request != nil {
			s.Postponed = append(s.Postponed, in.request.Event)
		} else {
			s.Postponed = append(s.Postponed, in.outcome.Event)
		}
	}
	m.snap.Store(&s)
	m.history.wake()
}

// Changed returns a channel that is closed at the next publication: take it, read the snapshot, then wait.
func (m *Machine) Changed() <-chan struct{} { return m.history.next() }

// Hops returns the kept hops with a sequence greater than after, oldest first.
func (m *Machine) Hops(after uint64) []Hop { return m.history.after(after) }

// Recall puts a hop of the process before this one where its number belongs, unless one is there. That process makes its
// last hop while this one starts.
func (m *Machine) Recall(h Hop) { m.history.insert(h) }

// history keeps the newest hops and wakes who waits for more.
type history struct {
	mu      sync.Mutex
	hops    []Hop
	number  uint64 // of the newest hop that was added, or of the one before the first
	changed chan struct{}
}

func (h *history) start(previous []Hop, first uint64) {
	h.hops = append(h.hops, previous[max(0, len(previous)-historyLength):]...)
	if n := len(h.hops); n > 0 {
		h.number = h.hops[n-1].Seq
	}
	if first > h.number {
		h.number = first - 1
	}
	h.changed = make(chan struct{})
}

// following is the number of the next hop.
func (h *history) following() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.number + 1
}

func (h *history) add(hop Hop) {
	h.insert(hop)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number = hop.Seq
}

func (h *history) insert(hop Hop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, taken := slices.BinarySearchFunc(h.hops, hop.Seq, func(h Hop, seq uint64) int { return cmp.Compare(h.Seq, seq) })
	if taken {
		return
	}
	h.hops = slices.Insert(h.hops, at, hop)
	if len(h.hops) > historyLength {
		h.hops = append(h.hops[:0], h.hops[1:]...)
	}
}

func (h *history) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *history) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *history) last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.hops) == 0 {
		return 0
	}
	return h.hops[len(h.hops)-1].Seq
}

func (h *history) after(seq uint64) []Hop {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Hop
	for _, hop := range h.hops {
		if hop.Seq > seq {
			out = append(out, hop)
		}
	}
	return out
}
