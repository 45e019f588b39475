package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Scope is what a client may do, and what a route asks for. Each contains the ones before it. The zero value is that of
// a route which names none, and is granted to nobody.
type Scope int

// Anyone may see the page and knock; Read changes nothing; Write is turns and sessions; Admin is all.
const (
	_ Scope = iota
	Anyone
	Read
	Write
	Admin
)

var scopeNames = map[Scope]string{Read: "read", Write: "write", Admin: "admin"}

// String is the name in the configuration; empty for those that are not granted.
func (s Scope) String() string { return scopeNames[s] }

// ScopeOf is the widest of the scopes with these names; other names grant nothing.
func ScopeOf(names ...string) (widest Scope) {
	for s, name := range scopeNames {
		if slices.Contains(names, name) {
			widest = max(widest, s)
		}
	}
	return widest
}

// Caller is whoever has a token.
type Caller struct {
	// Name is that of auth.clients; empty for who has auth.token.
	Name   string
	Scope  Scope
	digest [sha256.Size]byte
}

// NewCaller keeps no token, only what it is known by.
func NewCaller(name, token string, scope Scope) Caller {
	return Caller{Name: name, Scope: scope, digest: sha256.Sum256([]byte(token))}
}

// Master is a caller that needs no token. Stranger has none, and may only load the page and open a WebSocket.
var Master, Stranger = &Caller{Scope: Admin}, &Caller{Scope: Anyone}

// Prefix goes before the rest of who asked, in the history.
func (c *Caller) Prefix() string {
	if c.Name == "" {
		return ""
	}
	return "client " + c.Name + " "
}

// May refuses what is beyond the caller's scopes.
func (c *Caller) May(needs Scope) error {
	if needs != 0 && c.Scope >= needs {
		return nil
	}
	return &Error{
		Status: http.StatusForbidden, Type: TypePermission, Code: "insufficient_scope", Needs: needs,
		Message: fmt.Sprintf("this needs the scope %s, and the token of the client %s has only %s. Try: auth.token, or add it to auth.clients.%s.scopes, then gateway restart", needs, c.Name, c.Scope, c.Name),
	}
}

// CallerWith finds whose token it is; nil for nobody's. It compares digests, and always all of them, so that the time it
// takes says nothing of the tokens, nor of which one fits.
func (b *Backend) CallerWith(token string) *Caller {
	given, found := sha256.Sum256([]byte(token)), -1
	for i := range b.Callers {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(b.Callers[i].digest[:], given[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return &b.Callers[found]
}

// Bearer finds whose token the request has; nil for none, or nobody's.
func (b *Backend) Bearer(r *http.Request) *Caller {
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	return b.CallerWith(strings.TrimSpace(given))
}
