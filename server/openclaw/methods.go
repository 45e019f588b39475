package openclaw

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"gateway/fsm"
	"gateway/queue"
	"gateway/server/api"
)

// errAnswered is returned by a method that has responded by itself.
var errAnswered = errors.New("server: answered already")

// method answers one kind of request.
type method struct {
	scope api.Scope
	run   func(c *socket, ctx context.Context, id string, params api.Fields) (any, error)
}

// socketEvents are those that clients are sent.
var socketEvents = []string{"agent", "chat", "tick", "health", "presence", "shutdown"}

// methods by name; filled in by init, because hello lists them.
var methods map[string]method

func init() { //nolint:gochecknoinits // the methods refer to the table that lists them
	fixed := func(answer any) func(*socket, context.Context, string, api.Fields) (any, error) {
		return func(*socket, context.Context, string, api.Fields) (any, error) { return answer, nil }
	}
	methods = map[string]method{
		"health": {api.Read, func(c *socket, _ context.Context, _ string, _ api.Fields) (any, error) {
			return c.hub.health(c.b), nil
		}},
		"status": {api.Read, (*socket).status},
		"system-presence": {api.Read, func(c *socket, _ context.Context, _ string, _ api.Fields) (any, error) {
			return c.hub.presence(), nil
		}},
		"config.get":    {api.Read, fixed(map[string]any{})},
		"agents.list":   {api.Read, (*socket).listAgents},
		"agent":         {api.Write, (*socket).agent},
		"agent.wait":    {api.Read, (*socket).agentWait},
		"chat.send":     {api.Write, (*socket).chatSend},
		"chat.abort":    {api.Write, (*socket).chatAbort},
		"chat.history":  {api.Read, (*socket).chatHistory},
		"chat.resume":   {api.Read, (*socket).chatResume},
		"sessions.list": {api.Read, (*socket).listSessions},

		"sessions.describe":  {api.Read, (*socket).describeSession},
		"sessions.subscribe": {api.Read, fixed(map[string]any{"subscribed": true})},

		"gateway.restart.preflight": {api.Read, (*socket).restartPreflight},
		"gateway.restart.request":   {api.Admin, (*socket).restartRequest},

		"gateway.identity.get": {api.Read, (*socket).identity},

		// What other gateways have and there is none of here.
		"channels.status": {api.Read, (*socket).channelsStatus},
		"cron.status":     {api.Read, fixed(map[string]any{"enabled": false, "jobs": 0, "nextWakeAtMs": nil})},
		"cron.list":       {api.Read, (*socket).listCron},
		"node.list":       {api.Read, (*socket).listNodes},
		"last-heartbeat":  {api.Read, fixed(json.RawMessage("null"))},

		// A terminal client asks for these at its start; there are none here.
		"commands.list":        {api.Read, fixed(map[string]any{"commands": []any{}})},
		"question.list":        {api.Read, fixed(map[string]any{"questions": []any{}})},
		"plugin.approval.list": {api.Read, fixed([]any{})},
		"taskSuggestions.list": {api.Read, fixed(map[string]any{"suggestions": []any{}})},
	}
}

// inOrder are the methods that hand messages over: those of a connection are written down in the order in which they
// came.
func inOrder(name string) bool { return name == "agent" || name == "chat.send" }

// answer carries a request out and responds to it.
func (c *socket) answer(f frame) {
	defer func() {
		if p := recover(); p != nil {
			c.hub.opts.Log.Error().Interface("panic", p).Str("method", api.Clip(f.Method)).Stack().Msg("a method panicked; please report it")
			c.respond(f.ID, nil, &frameError{Code: codeUnavailable, Message: "internal error"})
		}
	}()
	m, ok := methods[f.Method]
	switch {
	case f.Method == methodConnect:
		c.respond(f.ID, nil, badFrame("connect is only valid as the first request"))
		return
	case !ok:
		c.respond(f.ID, nil, badFrame("unknown method: "+api.Clip(f.Method)))
		return
	case !c.peer.may(m.scope):
		c.respond(f.ID, nil, &frameError{Code: codeForbidden, Message: "missing scope: " + operatorScope(m.scope), Details: map[string]any{
			"code": "MISSING_SCOPE", "missingScope": operatorScope(m.scope), "requiredScopes": []string{operatorScope(m.scope)},
		}})
		return
	}
	params := api.Fields{}
	if len(f.Params) > 0 && string(f.Params) != "null" {
		var err error
		if params, err = api.ParseFields(f.Params); err != nil {
			c.respond(f.ID, nil, badFrame(fmt.Sprintf("invalid %s params: they are not an object. Try: {}", f.Method)))
			return
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, requestTime)
	defer cancel()
	payload, err := m.run(c, ctx, f.ID, params)
	if errors.Is(err, errAnswered) {
		return
	}
	if errors.Is(err, queue.ErrClosed) {
		return // the gateway retires: what it says to the whole connection is the answer
	}
	if err != nil {
		c.respond(f.ID, nil, c.asFrameError(err))
		return
	}
	c.respond(f.ID, payload, nil)
}

// asFrameError is the error as this protocol says it.
func (c *socket) asFrameError(err error) *frameError {
	if known, ok := errors.AsType[*frameError](err); ok {
		return known
	}
	e := api.Explain(err)
	out := &frameError{Code: codeInvalid, Message: e.Message}
	if e.Status >= 500 || e.RetryAfter > 0 {
		out.Code, out.Retryable, out.RetryAfterMS = codeUnavailable, e.RetryAfter > 0, e.RetryAfter.Milliseconds()
	}
	if e.Status >= 500 {
		e.LogFault(&c.hub.opts.Log, c.request, err)
	}
	return out
}

// agentMain is what clients that were never configured call the default agent, as it is called in OpenClaw.
const agentMain = "main"

// sessionKey is a session's full name, agent:AGENT:NAME, and its agent. The agent main is the default one, unless
// there is one of that name. Names of that kind say how the client knows its sessions.
func (c *socket) sessionKey(given, agent string) (key, of string, err error) {
	name := cmp.Or(given, "main")
	if rest, ok := strings.CutPrefix(given, "agent:"); ok {
		if agent, name, ok = strings.Cut(rest, ":"); !ok {
			return "", "", badFrame(fmt.Sprintf("sessionKey %q is not agent:AGENT:NAME. Try: main", api.Clip(given)))
		}
		if agent == agentMain || agent == c.b.DefaultAgent {
			c.asMain.Store(agent == agentMain)
		}
	}
	if agent = c.agentNamed(agent); agent == "" {
		agent = c.b.DefaultAgent
	}
	key = "agent:" + agent + ":" + name
	if !api.Printable(key, api.MaxName) {
		return "", "", badFrame(fmt.Sprintf("sessionKey must be at most %d printable characters. Try: main", api.MaxName))
	}
	if !slices.Contains(c.b.Agents, agent) {
		return "", "", badFrame(fmt.Sprintf("there is no agent %q. Try: one of %s", api.Clip(agent), strings.Join(c.b.Agents, ", ")))
	}
	return key, agent, nil
}

// agentNamed is the agent that a client means.
func (c *socket) agentNamed(name string) string {
	if name == agentMain && !slices.Contains(c.b.Agents, name) {
		return c.b.DefaultAgent
	}
	return name
}

// names are the session's key and its agent as this client knows them: one that has asked for its session as
// agent:main:NAME takes what is said of agent:AGENT:NAME, or of another agent, for somebody else's.
func (c *socket) names(key, agent string) (string, string) {
	if !c.asMain.Load() || c.agentNamed(agentMain) != agent {
		return key, agent
	}
	name, ok := strings.CutPrefix(key, "agent:"+agent+":")
	if !ok {
		return key, agent
	}
	return "agent:" + agentMain + ":" + name, agentMain
}

// agentOf is the agent in a session's key; the default one for sessions that other clients named.
func (c *socket) agentOf(key string) string {
	if rest, ok := strings.CutPrefix(key, "agent:"); ok {
		if name, _, whole := strings.Cut(rest, ":"); whole {
			return name
		}
	}
	return c.b.DefaultAgent
}

func (c *socket) listAgents(_ context.Context, _ string, _ api.Fields) (any, error) {
	agents := []map[string]any{}
	for _, name := range c.b.Agents {
		agents = append(agents, map[string]any{"id": name, "name": name})
	}
	if name := c.agentNamed(agentMain); name != agentMain { // a client that calls it so looks for it here when it comes back
		agents = append(agents, map[string]any{"id": agentMain, "name": name})
	}
	return map[string]any{"defaultId": c.b.DefaultAgent, "mainKey": "main", "scope": "per-sender", "agents": agents}, nil
}

func chatMessageOf(role, text string, at time.Time) map[string]any {
	return map[string]any{"role": role, "content": []map[string]string{{"type": "text", "text": text}}, "timestamp": at.UnixMilli()}
}

func (c *socket) listSessions(ctx context.Context, _ string, params api.Fields) (any, error) {
	var agent string
	limit, offset := api.DefaultPage, 0
	if err := params.TakeMembers(api.Into("agentId", &agent), api.Into("limit", &limit), api.Into("offset", &offset)); err != nil {
		return nil, err
	}
	if limit < 1 || offset < 0 || limit+offset > api.MaxPage {
		return nil, badFrame(fmt.Sprintf("limit and offset reach beyond the newest %d sessions. Try: smaller ones", api.MaxPage))
	}
	found, err := c.b.Queue.Sessions(ctx, api.MaxPage)
	if err != nil {
		return nil, err
	}
	agent = c.agentNamed(agent)
	found = slices.DeleteFunc(found, func(one queue.Session) bool { return agent != "" && c.agentOf(one.Name) != agent })
	total := len(found)
	found = found[min(offset, total):min(offset+limit, total)]
	sessions := []map[string]any{}
	for _, one := range found {
		sessions = append(sessions, c.sessionDocument(one))
	}
	next := any(nil)
	if offset+len(sessions) < total {
		next = offset + len(sessions)
	}
	return map[string]any{
		"ts": time.Now().UnixMilli(), "count": len(sessions), "totalCount": total, "nextOffset": next, "hasMore": next != nil,
		"defaults": map[string]any{"agentId": c.b.DefaultAgent}, "sessions": sessions,
	}, nil
}

func (c *socket) sessionDocument(one queue.Session) map[string]any {
	key, agent := c.names(one.Name, c.agentOf(one.Name))
	return map[string]any{
		"key": key, "sessionId": one.Name, "agentId": agent, "kind": "direct", "updatedAt": one.UpdatedAt.UnixMilli(),
		"turns": one.Turns, "queued": one.Queued, "running": one.Running, "paused": one.Paused,
	}
}

func (c *socket) describeSession(ctx context.Context, _ string, params api.Fields) (any, error) {
	var given string
	if err := params.TakeMembers(api.Into("key", &given)); err != nil {
		return nil, err
	}
	key, _, err := c.sessionKey(given, "")
	if err != nil {
		return nil, err
	}
	one, err := c.b.Queue.Session(ctx, key)
	if err != nil {
		return nil, err
	}
	if one.Turns == 0 {
		return map[string]any{"session": nil}, nil
	}
	return map[string]any{"session": c.sessionDocument(one)}, nil
}

// restartPreflight says what a restart would wait for.
func (c *socket) restartPreflight(_ context.Context, _ string, _ api.Fields) (any, error) {
	return c.preflight(), nil
}

func (c *socket) preflight() map[string]any {
	blockers := []map[string]any{}
	for _, t := range c.b.Queue.Active() {
		blockers = append(blockers, map[string]any{"kind": "turn", "id": t.ID, "sessionKey": t.Session, "startedAt": t.StartedAt.UnixMilli()})
	}
	st := c.b.Queue.Stats()
	summary := "nothing runs; a restart disturbs nobody"
	if len(blockers) > 0 {
		summary = fmt.Sprintf("a restart waits for %d running turns, as long as lifecycle.drain_timeout says", len(blockers))
	}
	return map[string]any{
		"safe": len(blockers) == 0, "counts": map[string]int{"queueSize": st.Queued, "activeTasks": st.Running, "totalActive": st.Running},
		"blockers": blockers, "summary": summary,
	}
}

func (c *socket) restartRequest(ctx context.Context, _ string, params api.Fields) (any, error) {
	var reason string
	if err := params.TakeMembers(api.Into("reason", &reason)); err != nil {
		return nil, err
	}
	if !api.Printable(reason, api.MaxReason) {
		return nil, badFrame(fmt.Sprintf("reason must be at most %d printable characters. Try: a shorter one", api.MaxReason))
	}
	preflight := c.preflight()
	d, err := c.hub.opts.Lifecycle.Request(ctx, fsm.Request{
		Event: fsm.Restart, Actor: "websocket " + c.peer.caller.Prefix() + c.peer.ID, Reason: reason,
	})
	if err != nil {
		return nil, fmt.Errorf("server: requesting a restart: %w", err)
	}
	return map[string]any{
		"ok": true, "status": d.Outcome, "state": d.State, "message": d.Message,
		"preflight": preflight, "restart": map[string]any{"pid": os.Getpid()}, // the command line looks at both
	}, nil
}
