package process

import (
	"sync"
	"time"
)

// authorizationLife is how long a grant waits for its signal.
const authorizationLife = 5 * time.Second

// Authorization is the permission for one restart by SIGUSR1. Any process that may signal this one can send SIGUSR1, a
// supervisor or a script by mistake too. So the signal counts only when somebody with access to the API has just granted
// it. The zero value grants nothing.
type Authorization struct {
	mu    sync.Mutex
	actor string
	until time.Time
}

// Grant permits one restart by signal within the next 5 s.
func (a *Authorization) Grant(actor string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.actor, a.until = actor, time.Now().Add(authorizationLife)
}

// Use consumes the grant and returns who gave it.
func (a *Authorization) Use() (actor string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !time.Now().Before(a.until) {
		return "", false
	}
	a.until = time.Time{}
	return a.actor, true
}
