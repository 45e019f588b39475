package queue

import "sync"

// hub tells those who wait for a turn what has become durable. A watcher costs a map entry while it
// watches, and a wake-up; it reads the events themselves from the store at its own pace.
type hub struct {
	mu      sync.Mutex
	open    map[string]struct{} // turns that are not final, as far as told
	topics  map[string]*topic   // turns that somebody watches
	changes changes
	err     error // set before ended is closed

	ended chan struct{} // nothing will be told any more
}

// topic is a watched turn. Its fields are guarded by the hub's mutex; turn may be read once final is closed.
type topic struct {
	watchers int
	news     chan struct{} // closed at the next event; nil until somebody asks
	final    chan struct{} // closed when the turn is final, or is not this queue's any more
	turn     *Turn         // the final turn; nil when the store must be asked
}

func newHub() *hub {
	return &hub{open: map[string]struct{}{}, topics: map[string]*topic{}, ended: make(chan struct{})}
}

// watch begins to watch a turn; open reports that it is known not to be final. What becomes durable after
// watch has returned is not missed.
func (h *hub) watch(id string) (t *topic, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.topics[id]
	if !ok {
		t = &topic{final: make(chan struct{})}
		h.topics[id] = t
	}
	t.watchers++
	_, open = h.open[id]
	return t, open
}

func (h *hub) unwatch(id string, t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.watchers--
	if t.watchers == 0 && h.topics[id] == t {
		delete(h.topics, id)
	}
}

// news returns a channel that is closed when the turn has a newer event.
func (h *hub) news(t *topic) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.news == nil {
		t.news = make(chan struct{})
	}
	return t.news
}

// opened notes a turn that was found in the store.
func (h *hub) opened(id string) { h.open[id] = struct{}{} }

// tell passes on a batch that the scheduler has taken in.
func (h *hub) tell(batch []operation) {
	if len(batch) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range batch {
		h.changes.tell(op)
		failed := op.status().err != nil
		switch op := op.(type) {
		case *acceptTurn:
			switch {
			case failed:
			case op.first == nil:
				h.opened(op.turn.ID)
			case op.joined:
				h.wake(op.first.ID)
			}
		case *retryTurn:
			if !failed {
				h.opened(op.turn.ID)
				h.wake(op.turn.ID)
			}
		case *startTurn:
			if failed {
				h.finish(op.place.id, nil)
			} else {
				h.wake(op.turn.ID)
			}
		case *appendText:
			if !failed {
				h.wake(op.event.Turn)
			}
		case *endTurn:
			switch {
			case failed && op.replaced:
			case failed:
				h.finish(op.turn.ID, nil)
			case op.turn.Status.Final():
				h.finish(op.turn.ID, &op.turn)
			default:
				h.wake(op.turn.ID)
			}
		case *cancelTurn:
			if !failed {
				h.finish(op.turn.ID, &op.turn)
			}
		case *changeSetting, *deleteTurn, *pruneTurns: // nobody follows a setting or a final turn
		}
	}
}

// end releases everybody. The first reason stays.
func (h *hub) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
		close(h.ended)
	}
}

func (h *hub) wake(id string) {
	if t, ok := h.topics[id]; ok && t.news != nil {
		close(t.news)
		t.news = nil
	}
}

func (h *hub) finish(id string, turn *Turn) {
	delete(h.open, id)
	h.wake(id)
	if t, ok := h.topics[id]; ok {
		// A turn that is retried gets a topic of its own.
		delete(h.topics, id)
		t.turn = turn
		close(t.final)
	}
}
