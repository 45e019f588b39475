package queue

import "sync"

// mailbox is an unbounded queue with one reader. Putting never waits, so that the scheduler and the
// committer can write to each other; what bounds it is that every writer waits for an answer.
type mailbox[T any] struct {
	mu     sync.Mutex
	items  []T
	closed bool

	wake chan struct{} // capacity 1: there is something to take, or nothing will come any more
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{wake: make(chan struct{}, 1)}
}

// put reports false when the mailbox is closed; nothing was put then.
func (m *mailbox[T]) put(items ...T) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.items = append(m.items, items...)
	m.ring()
	return true
}

// take appends up to limit items to buf. open is false once the mailbox is closed and empty.
func (m *mailbox[T]) take(buf []T, limit int) (items []T, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := min(limit, len(m.items))
	buf = append(buf, m.items[:n]...)
	clear(m.items[:n])
	m.items = m.items[n:]
	if len(m.items) == 0 {
		m.items = nil
	}
	if len(m.items) > 0 || m.closed && n > 0 {
		m.ring() // there is more, or the end is still to be seen
	}
	return buf, !m.closed || n > 0
}

func (m *mailbox[T]) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.ring()
}

func (m *mailbox[T]) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
