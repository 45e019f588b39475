package server

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"gateway/server/api"
	"gateway/server/carry"
)

const (
	// bodyTime is how long a client may take for a request's body, or for bodyPart bytes of it.
	bodyTime = 30 * time.Second
	bodyPart = 512 << 10
	// maxBodies is how many bytes of large bodies are in memory at once, unless two of the largest need more: a
	// body stays until its request is answered, so that it can be carried over a restart. Of each body smallBody
	// bytes do not count, so that large ones keep nobody from asking small questions.
	maxBodies = 64 << 20
	smallBody = 64 << 10
	// maxClients is how many clients' rates are known at once. The one that was not heard of for longest is
	// forgotten for a new one.
	maxClients = 10_000
)

// meter limits how often each client may ask.
type meter struct {
	mu      sync.Mutex
	rate    rate.Limit
	burst   int
	clients map[asker]*list.Element
	recent  *list.List // of *clientRate, the latest heard of first
}

// asker is who a rate counts for. Who has a token is not slowed by a neighbour who has none, or another one.
type asker struct {
	from  netip.Prefix
	known bool   // it has a token
	name  string // of whose token that is
}

type clientRate struct {
	asker
	*rate.Limiter
}

func newMeter() *meter { return &meter{clients: make(map[asker]*list.Element), recent: list.New()} }

// set puts a limit in force; 0 a second is none. Clients keep what they have used of an unchanged one.
func (m *meter) set(perSecond, burst int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate == rate.Limit(perSecond) && m.burst == burst {
		return
	}
	m.rate, m.burst = rate.Limit(perSecond), burst
	clear(m.clients)
	m.recent.Init()
}

// reserve counts one request. A positive answer says that it is one too many, and when there is room again.
func (m *meter) reserve(c asker, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate <= 0 {
		return 0
	}
	at, ok := m.clients[c]
	if !ok {
		if len(m.clients) >= maxClients {
			oldest := m.recent.Back()
			delete(m.clients, oldest.Value.(*clientRate).asker)
			m.recent.Remove(oldest)
		}
		at = m.recent.PushFront(&clientRate{c, rate.NewLimiter(m.rate, m.burst)})
		m.clients[c] = at
	}
	m.recent.MoveToFront(at)
	r := at.Value.(*clientRate).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// metered refuses a request that is one too many.
func (s *Server) metered(r *http.Request, who *api.Caller, known bool) error {
	by := asker{from: carry.Network(r.RemoteAddr), known: known}
	if known {
		by.name = who.Name
	}
	wait := s.meter.reserve(by, time.Now())
	if wait <= 0 {
		return nil
	}
	return &api.Error{
		Status: http.StatusTooManyRequests, Type: api.TypeRateLimit, Code: "rate_limit_exceeded", RetryAfter: wait,
		Message: fmt.Sprintf("this client asks too often. Try: again in %d s, or raise limits.requests_per_second or limits.burst", int(math.Ceil(wait.Seconds()))),
	}
}

// patient reads a body whose client must not take forever, and counts what is in memory of it.
type patient struct {
	io.ReadCloser
	s     *Server
	rc    *http.ResponseController
	bytes int64
	part  int64 // bytes since the deadline was last put off
	ended bool
}

// newPatient: the deadline also holds for a body that no handler reads, of which net/http reads the rest.
func (s *Server) newPatient(w http.ResponseWriter, body io.ReadCloser) *patient {
	p := &patient{ReadCloser: body, s: s, rc: http.NewResponseController(w)}
	p.putOff()
	return p
}

func (p *patient) putOff() {
	p.part = 0
	_ = p.rc.SetReadDeadline(time.Now().Add(bodyTime)) // what cannot be set cannot be slow
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if p.ended {
		return p.ReadCloser.Read(b)
	}
	n, err := p.ReadCloser.Read(b)
	if p.part += int64(n); p.part >= bodyPart {
		p.putOff()
	}
	counted := p.counted()
	p.bytes += int64(n)
	all := p.s.bodies.Add(p.counted() - counted)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, &api.Error{
			Status: http.StatusRequestTimeout, Type: api.TypeInvalid, Code: "body_timeout", Cause: err,
			Message: fmt.Sprintf("the request's body took longer than %s for %d KiB. Try: again, with the same Idempotency-Key", bodyTime, bodyPart>>10),
		}
	}
	if err != nil {
		p.ended = true
		_ = p.rc.SetReadDeadline(time.Time{}) // net/http reads on, to see whether the client leaves
	}
	if most := max(maxBodies, 2*p.s.bodyLimit()); all > most && p.counted() > 0 {
		err = api.Unavailable("too_much_at_once", fmt.Sprintf("large requests already use %d MiB of memory. Try: again in a moment, with the same Idempotency-Key, or send less", most>>20), nil)
	}
	return n, err
}

func (p *patient) counted() int64 { return max(0, p.bytes-smallBody) }

// release is for the end of the request.
func (p *patient) release() { p.s.bodies.Add(-p.counted()) }
