package fsm

import "sync"

// maxRequests bounds the requests other than stops that wait in the mailbox. Outcomes and deadlines are never refused:
// there is at most one effect and a few timers at a time.
const maxRequests = 1024

// mail is one message to the owner. Exactly one of its parts is set.
type mail struct {
	request *requestMail
	outcome *outcomeMail
	commit  *commitMail
	ping    chan<- struct{} // buffered
}

type requestMail struct {
	Request
	answer chan<- Decision // buffered; nil when nobody waits
}

// outcomeMail is an outcome of an effect, what it reports on its way, or a deadline. It counts only in the visit that it
// belongs to, or, with visit 0, in its generation.
type outcomeMail struct {
	Outcome
	visit      uint64
	generation int
	due        *deadlineError // nil unless a deadline passed
	armed      uint64         // of a deadline: it counts only until deadlines are set anew
	recorded   chan<- error   // buffered; nil when nobody waits
}

type commitMail struct {
	visit   uint64
	quiesce func() (restore func())
	act     func(Hop) error
	then    Outcome
	answer  chan<- error // buffered
}

// mailbox is the queue of the owner: posting never blocks, taking does.
type mailbox struct {
	mu       sync.Mutex
	waiting  []mail
	requests int
	closed   bool
	ready    chan struct{} // holds a token while something waits
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// post reports whether the mail will be read.
func (b *mailbox) post(m mail) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || (m.request != nil && m.request.Event != Stop && b.requests >= maxRequests) {
		return false
	}
	if m.request != nil {
		b.requests++
	}
	b.waiting = append(b.waiting, m)
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

// take waits for the next mail.
func (b *mailbox) take() mail {
	for {
		b.mu.Lock()
		if len(b.waiting) > 0 {
			m := b.waiting[0]
			b.waiting[0] = mail{}
			b.waiting = b.waiting[1:]
			if m.request != nil {
				b.requests--
			}
			b.mu.Unlock()
			return m
		}
		b.mu.Unlock()
		<-b.ready
	}
}

// holds reports whether a request for the event waits.
func (b *mailbox) holds(ev Event) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.waiting {
		if m.request != nil && m.request.Event == ev {
			return true
		}
	}
	return false
}

// close refuses further mail and returns what was never read.
func (b *mailbox) close() []mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	rest := b.waiting
	b.waiting = nil
	return rest
}
