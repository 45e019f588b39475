package daemon

import (
	"sync"
	"sync/atomic"

	"gateway/internal/handoff"
)

// Arrival is how a process came to be the gateway. The zero value is a fresh start.
type Arrival struct {
	// Inherited is all that the gateway before this one leaves to this process; nil for nothing.
	Inherited *handoff.Inherited
	// Predecessor is the process of the gateway before this one as long as it may go on without this process; nil when
	// it is this process itself, or when there is none.
	Predecessor *handoff.Predecessor
}

func (a Arrival) role() role {
	switch {
	case a.Inherited == nil:
		return fresh
	case a.Predecessor == nil:
		return nextImage
	default:
		return candidate
	}
}

// handover is what this process has to do with the gateway before it and with the one after it.
type handover struct {
	came        role                      // what this process began as
	role        atomic.Pointer[role]      // what it is now
	inherited   *handoff.Inherited        // nil once the first start has taken it over
	predecessor *handoff.Predecessor      // nil once it has nothing more to hand over
	forwarded   sync.WaitGroup            // the predecessor's last connections
	next        *preparation              // who is asked, or has promised, to take over from this process; nil for nobody
	successor   atomic.Pointer[successor] // who this process has handed over to; nil before
	checking    chan struct{}             // holds one while a successor is only asked
	lingers     bool                      // connections are left that could not be handed over
}

func (h *handover) begin(came Arrival) {
	h.came, h.inherited, h.predecessor = came.role(), came.Inherited, came.Predecessor
	h.role.Store(&h.came)
	h.checking = make(chan struct{}, 1)
}

// current is the role of this process.
func (h *handover) current() role { return *h.role.Load() }

// move changes the role.
func (h *handover) move(on occasion) error {
	r, err := h.current().next(on)
	if err == nil {
		h.role.Store(&r)
	}
	return err
}

// handedTo is the process that has taken over from this one; nil for none.
func (h *handover) handedTo() successor {
	if s := h.successor.Load(); s != nil {
		return *s
	}
	return nil
}

// restarted reports whether a generation comes from a restart: it ran a moment ago, and may again.
func (h *handover) restarted(generation int) bool { return h.came != fresh || generation > 0 }
