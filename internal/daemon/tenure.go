package daemon

import (
	"errors"
	"sync"
)

// errTooLate is what an effect gets that has outlived the gateway: what it opened is closed again.
var errTooLate = errors.New("the gateway has ended meanwhile")

// tenure is the time in which effects may add to what the daemon owns. Effects run one at a time, with one exception:
// release waits for the effect before it, but not for ever, and runs beside one that hangs. From the beginning of
// release on, all that the daemon owns is release's to close, and nobody adds to it: an effect that comes back from a
// call then closes by itself what that call has opened.
//
// So a field that start, reset or respawn write is written in keep. Effects read without it, since release writes
// nothing that they read.
type tenure struct {
	mu   sync.Mutex
	over bool
}

// keep runs put, which makes something the daemon's, unless the tenure is over. Then it runs late, which closes that
// something (nil for nothing to close), and returns errTooLate.
func (t *tenure) keep(put, late func()) error {
	t.mu.Lock()
	over := t.over
	if !over {
		put()
	}
	t.mu.Unlock()
	if !over {
		return nil
	}
	if late != nil {
		late()
	}
	return errTooLate
}

// end begins the release: what was kept until now can be read, and nothing is kept from now on.
func (t *tenure) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}
