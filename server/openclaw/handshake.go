package openclaw

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"gateway/server/api"
)

// protocol is the version that is spoken; protocolOldest the oldest that a client may offer as its newest.
const (
	protocol       = 4
	protocolOldest = 4
	maxClientID    = 64
	// signatureAge is how old, or how far ahead, the signature of a device may be.
	signatureAge = 10 * time.Minute
)

// methodConnect is the first request of every client.
const methodConnect = "connect"

// peer is who is at the other end.
type peer struct {
	ID, DisplayName, Version, Platform, DeviceFamily, ModelIdentifier, Mode, InstanceID string

	scopes []string    // as the client is told
	widest api.Scope   // of them
	caller *api.Caller // whose token it has
	method string      // of authentication
	since  time.Time
	host   string
}

// may reports whether the client has the scope.
func (p peer) may(scope api.Scope) bool { return p.widest >= scope }

// grant gives the client what it asks for as far as its token allows, and what it may read and write when it does not
// say. What contains more than is allowed stands for as much of it as is.
func (p *peer) grant(asked []string, who *api.Caller) {
	p.caller = who
	if asked == nil {
		asked = []string{operatorScope(api.Read), operatorScope(api.Write)}
	}
	beyond := false // the client asks for more than it may
	for _, scope := range []api.Scope{api.Admin, api.Write, api.Read} {
		wanted := slices.Contains(asked, operatorScope(scope))
		if who.Scope < scope {
			beyond = beyond || wanted
			continue
		}
		if wanted || beyond {
			p.scopes = append(p.scopes, operatorScope(scope))
			p.widest = max(p.widest, scope)
		}
	}
	slices.Reverse(p.scopes)
}

// connectParams is the first request of a client.
type connectParams struct {
	min, max int
	peer     peer
	scopes   []string
	token    string
	device   *device
}

// device is a client's proof of who it is.
type device struct {
	ID, PublicKey, Signature, Nonce string
	SignedAt                        int64
}

func newNonce() string { return rand.Text() }

// handshake greets the client, or refuses it and closes the connection.
func (c *socket) handshake(silent *time.Timer) bool {
	f, err := c.read()
	if !silent.Stop() || err != nil && err != errNotAFrame { //nolint:errorlint // it is never wrapped
		return false
	}
	if err != nil || f.Method != methodConnect {
		c.refuse(f.ID, websocket.StatusPolicyViolation, badFrame("invalid handshake: first request must be connect"))
		return false
	}
	p, err := parseConnect(f.Params)
	if err != nil {
		e := api.Explain(err)
		c.refuse(f.ID, websocket.StatusPolicyViolation, badFrame("invalid connect params: "+e.Message))
		return false
	}
	if p.max < protocolOldest || p.min > protocol {
		c.refuse(f.ID, websocket.StatusProtocolError, &frameError{Code: codeInvalid, Message: "protocol mismatch", Details: map[string]any{
			"code": "PROTOCOL_MISMATCH", "clientMinProtocol": p.min, "clientMaxProtocol": p.max, "expectedProtocol": protocol,
		}})
		return false
	}
	if refused := c.authenticate(&p); refused != nil {
		c.refuse(f.ID, websocket.StatusPolicyViolation, refused)
		return false
	}
	select {
	case <-c.hub.opts.Retirement.Begun():
		c.refuse(f.ID, websocket.StatusTryAgainLater, &frameError{
			Code: codeUnavailable, Message: "the gateway restarts", Details: map[string]any{"reason": "startup-sidecars"},
			Retryable: true, RetryAfterMS: 500,
		})
		return false
	default:
	}
	c.peer = p.peer
	c.hub.takeUp(c.ctx, c.b)
	hello := c.hello()
	c.hub.joined(c, func() { c.respond(f.ID, hello, nil) })
	return true
}

func (c *socket) refuse(id string, code websocket.StatusCode, e *frameError) {
	if id == "" {
		id = "invalid"
	}
	c.respond(id, nil, e)
	c.close(code, e.Message)
}

// parseConnect reads the parameters of connect. A property that is not known is refused by name.
func parseConnect(raw []byte) (p connectParams, err error) {
	f, err := api.ParseFields(raw)
	if err != nil {
		return p, err
	}
	var who, auth, signed api.Fields
	var role string
	var scopes []string
	f.Drop("caps", "commands", "permissions", "pathEnv", "locale", "userAgent")
	err = f.TakeMembers(api.Into("minProtocol", &p.min), api.Into("maxProtocol", &p.max), api.Into("client", &who),
		api.Into("auth", &auth), api.Into("device", &signed), api.Into("role", &role), api.Into("scopes", &scopes))
	if err != nil {
		return p, err
	}
	if err := f.RefuseUnknown(""); err != nil {
		return p, err
	}
	err = who.TakeMembers(api.Into("id", &p.peer.ID), api.Into("displayName", &p.peer.DisplayName), api.Into("version", &p.peer.Version),
		api.Into("platform", &p.peer.Platform), api.Into("deviceFamily", &p.peer.DeviceFamily),
		api.Into("modelIdentifier", &p.peer.ModelIdentifier), api.Into("mode", &p.peer.Mode), api.Into("instanceId", &p.peer.InstanceID))
	if err != nil {
		return p, api.Nested(err, "client")
	}
	if err := who.RefuseUnknown("client."); err != nil {
		return p, err
	}
	for name, value := range map[string]string{
		"client.id": p.peer.ID, "client.displayName": p.peer.DisplayName, "client.version": p.peer.Version,
		"client.platform": p.peer.Platform, "client.mode": p.peer.Mode, "client.instanceId": p.peer.InstanceID,
		"client.deviceFamily": p.peer.DeviceFamily, "client.modelIdentifier": p.peer.ModelIdentifier,
	} {
		if !api.Printable(value, api.MaxName) || name == "client.id" && (value == "" || len(value) > maxClientID) {
			return p, api.Invalid(name, "invalid_value", "%s must be a short printable text. Try: cli", name)
		}
	}
	if role != "" && role != "operator" {
		return p, api.Invalid("role", "invalid_value", "role %q is not served. Try: operator", api.Clip(role))
	}
	p.scopes = scopes
	var password string
	if err := auth.TakeMembers(api.Into("token", &p.token), api.Into("password", &password)); err != nil {
		return p, api.Nested(err, "auth")
	}
	auth.Drop("deviceToken", "bootstrapToken") // other gateways give them out
	if p.token == "" {
		p.token = password
	}
	if err := auth.RefuseUnknown("auth."); err != nil {
		return p, err
	}
	if signed != nil {
		p.device = &device{}
		err := signed.TakeMembers(api.Into("id", &p.device.ID), api.Into("publicKey", &p.device.PublicKey),
			api.Into("signature", &p.device.Signature), api.Into("signedAt", &p.device.SignedAt), api.Into("nonce", &p.device.Nonce))
		if err != nil {
			return p, api.Nested(err, "device")
		}
		return p, signed.RefuseUnknown("device.")
	}
	return p, nil
}

// authenticate checks the token and, when there is one, the device, and says what the client may do.
func (c *socket) authenticate(p *connectParams) *frameError {
	who := api.Master
	p.peer.method = "none"
	if !c.from.Trusted && len(c.b.Callers) > 0 {
		p.peer.method = "token"
		if p.token == "" {
			who = c.b.Bearer(c.request)
		} else {
			who = c.b.CallerWith(p.token)
		}
	}
	switch {
	case who == nil && p.token == "" && p.device == nil:
		return &frameError{Code: codeNotPaired, Message: "device identity required", Details: map[string]any{"code": "DEVICE_IDENTITY_REQUIRED"}}
	case who == nil:
		return &frameError{
			Code: codeInvalid, Message: "unauthorized: gateway token mismatch (provide gateway auth token)",
			Details: map[string]any{"code": "AUTH_TOKEN_MISMATCH"},
		}
	}
	if p.device != nil {
		if why := p.device.check(p, c.nonce, time.Now()); why != "" {
			return badFrame(why)
		}
	}
	p.peer.grant(p.scopes, who)
	p.peer.since = time.Now()
	p.peer.host = c.from.Host
	return nil
}

// check says what is wrong with the device's signature; empty when nothing is.
func (d *device) check(p *connectParams, nonce string, now time.Time) string {
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(d.PublicKey, "="))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return "device public key invalid"
	}
	if id := sha256.Sum256(key); d.ID != hex.EncodeToString(id[:]) {
		return "device identity mismatch"
	}
	if d.Nonce != nonce {
		return "device nonce mismatch"
	}
	if age := now.Sub(time.UnixMilli(d.SignedAt)); age.Abs() > signatureAge {
		return "device signature expired"
	}
	signature, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(d.Signature, "="))
	if err != nil {
		return "device signature invalid"
	}
	text := fmt.Sprintf("%s|%s|%s|%s|%s|%s|%s|%s", d.ID, p.peer.ID, p.peer.Mode, "operator",
		strings.Join(p.scopes, ","), strconv.FormatInt(d.SignedAt, 10), p.token, nonce)
	told := func(s string) string { return strings.ToLower(strings.TrimSpace(s)) } // as clients sign it
	for _, signed := range []string{
		"v3|" + text + "|" + told(p.peer.Platform) + "|" + told(p.peer.DeviceFamily),
		"v3|" + text + "|" + p.peer.Platform + "|" + p.peer.DeviceFamily,
		"v2|" + text,
	} {
		if ed25519.Verify(key, []byte(signed), signature) {
			return ""
		}
	}
	return "device signature invalid"
}

// hello is the answer to connect.
func (c *socket) hello() map[string]any {
	return map[string]any{
		"type": "hello-ok", "protocol": protocol,
		"server":   map[string]any{"version": c.hub.opts.Version, "connId": c.id, "bootId": c.hub.opts.Lifecycle.Snapshot().BootID},
		"features": map[string]any{"methods": slices.Sorted(maps.Keys(methods)), "events": socketEvents},
		"snapshot": map[string]any{
			"presence": c.hub.presence(), "health": c.hub.health(c.b), "stateVersion": map[string]int{"presence": c.hub.presenceVersion(), "health": 0},
			"uptimeMs": time.Since(c.hub.began).Milliseconds(),
		},
		"auth":   map[string]any{"method": c.peer.method, "role": "operator", "scopes": append([]string{}, c.peer.scopes...)},
		"policy": map[string]any{"maxPayload": maxFrame, "maxBufferedBytes": maxBuffered, "tickIntervalMs": tickInterval.Milliseconds()},
	}
}

// maxPresence is how many clients presence lists: all of them are told it whenever one comes or goes.
const maxPresence = 20

// presence lists the clients that are connected, the newest first.
func (h *Hub) presence() []map[string]any {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := []map[string]any{}
	for e := h.joiners.Front(); e != nil && len(all) < maxPresence; e = e.Next() {
		c, _ := e.Value.(*socket)
		who := c.peer
		one := map[string]any{
			"reason": "connect", "roles": []string{"operator"}, "scopes": append([]string{}, who.scopes...), "ts": who.since.UnixMilli(),
			"text": strings.TrimSpace(who.ID + " " + who.Version),
		}
		for name, value := range map[string]string{
			"host": who.host, "version": who.Version, "platform": who.Platform, "mode": who.Mode, "instanceId": who.InstanceID,
		} {
			if value != "" { // clients do not take empty ones
				one[name] = value
			}
		}
		all = append(all, one)
	}
	return all
}

func (h *Hub) presenceVersion() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version
}

// operatorScope is the name in the WebSocket protocol.
func operatorScope(s api.Scope) string { return "operator." + s.String() }
