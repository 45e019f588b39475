package openclaw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"gateway/queue"
	"gateway/server/api"
)

const (
	// deltaInterval is the least time between two chat events with text of a run, for each deltaGrain bytes that the
	// text has: each event carries all of it.
	deltaInterval = 100 * time.Millisecond
	deltaGrain    = 64 << 10
	// runTime is how long agent waits for its run when the client does not say.
	runTime = 10 * time.Minute
	maxWait = 24 * time.Hour
)

// A run is a turn. Its id here is the idempotency key that the client gave it.

// run is one as its clients know it.
type run struct {
	id, session, agent string
	turn               queue.Turn
	created            bool
}

// accept hands a message to the queue. It is written down when this returns.
func (c *socket) accept(ctx context.Context, params api.Fields, message, session, agent, key string) (r run, err error) {
	var deliver bool
	params.Drop("thinking", "label", "timeoutMs") // change nothing that is served here
	if err := params.TakeMembers(api.Into("deliver", &deliver)); err != nil {
		return r, err
	}
	if deliver {
		return r, badFrame("deliver is not possible: there are no channels here. Try: deliver=false")
	}
	if err := params.RefuseRest(""); err != nil {
		return r, err
	}
	switch {
	case strings.TrimSpace(message) == "":
		return r, badFrame("message is empty. Try: \"hello\"")
	case int64(len(message)) > c.b.MaxInput:
		return r, api.TooLarge("the message", c.b.MaxInput, "turns.max_input")
	case key == "" || !api.Printable(key, api.MaxKey):
		return r, badFrame(fmt.Sprintf("idempotencyKey must be 1 to %d printable characters. Try: a fresh UUID", api.MaxKey))
	}
	r.id = key
	if r.session, r.agent, err = c.sessionKey(session, agent); err != nil {
		return r, err
	}
	r.turn, r.created, err = c.b.Queue.Accept(ctx, queue.NewTurn{
		Session: r.session, Lane: c.b.DefaultLane, Agent: r.agent, Input: message, IdempotencyKey: key, DefaultMode: c.b.Modes[r.agent],
	})
	if err == nil {
		c.hub.remember(r.id, r.turn.ID)
	}
	return r, err
}

// agent runs a turn and answers twice: when it is accepted, and when it has ended.
func (c *socket) agent(ctx context.Context, id string, params api.Fields) (any, error) {
	var message, session, agent, key string
	var seconds float64
	var sessionID string
	err := params.TakeMembers(api.Into("message", &message), api.Into("sessionKey", &session), api.Into("sessionId", &sessionID),
		api.Into("agentId", &agent), api.Into("idempotencyKey", &key), api.Into("timeout", &seconds))
	if err != nil {
		return nil, err
	}
	session = cmp.Or(session, sessionID) // here they are the same; the command line tells a part of the key as the id
	release, err := c.await()
	if err != nil {
		return nil, err
	}
	r, err := c.accept(ctx, params, message, session, agent, key)
	if err != nil {
		release()
		return nil, err
	}
	known, named := c.names(r.session, r.agent)
	c.respond(id, map[string]any{
		"runId": r.id, "sessionKey": known, "agentId": named, "status": "accepted", "acceptedAt": r.turn.CreatedAt.UnixMilli(),
	}, nil)
	c.hub.follow(c.b, r, nil)
	limit := runTime
	if seconds > 0 {
		limit = min(time.Duration(seconds*float64(time.Second)), maxWait)
	}
	c.later(id, release, func() (any, error) { return c.outcome(c.ctx, r, limit) })
	return nil, errAnswered
}

// await takes one of the places of requests that wait for a run. They are apart from the others, so that a
// connection whose runs take long is answered all the same.
func (c *socket) await() (release func(), err error) {
	select {
	case c.awaits <- struct{}{}:
		return func() { <-c.awaits }, nil
	default:
		return nil, &frameError{
			Code: codeUnavailable, Retryable: true, RetryAfterMS: 1000,
			Message: fmt.Sprintf("%d requests of this connection wait for runs already. Try: again when one has ended, or chat.send", maxAwaited),
		}
	}
}

// later responds when what the request waits for has come.
func (c *socket) later(id string, release func(), wait func() (any, error)) {
	c.work.Go(func() {
		defer release()
		answer, err := wait()
		switch {
		case errors.Is(err, queue.ErrClosed):
		case err != nil:
			c.respond(id, nil, c.asFrameError(err))
		default:
			c.respond(id, answer, nil)
		}
	})
}

// outcome waits for the end of a run.
func (c *socket) outcome(ctx context.Context, r run, limit time.Duration) (any, error) {
	t, err := c.waitFor(ctx, r.turn.ID, limit)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, &frameError{Code: codeTimeout, Message: fmt.Sprintf("run %s has not ended within %s; it goes on", r.id, limit), Retryable: true}
	}
	if err != nil {
		return nil, err
	}
	known, named := c.names(r.session, r.agent)
	answer := map[string]any{"runId": r.id, "sessionKey": known, "agentId": named}
	if t.Status == queue.Completed {
		answer["status"], answer["summary"] = "ok", "completed"
		answer["result"] = map[string]any{"payloads": []map[string]any{{"text": t.Output, "mediaUrl": nil}}}
		return answer, nil
	}
	answer["status"], answer["summary"], answer["error"] = "error", t.Error, t.Error
	return answer, nil
}

func (c *socket) waitFor(ctx context.Context, turn string, limit time.Duration) (queue.Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.b.Queue.Wait(ctx, turn)
}

// agentWait waits for the end of a run, also one that was begun before a restart or by somebody else.
func (c *socket) agentWait(ctx context.Context, request string, params api.Fields) (any, error) {
	var id string
	millis := int64(30_000)
	if err := params.TakeMembers(api.Into("runId", &id), api.Into("timeoutMs", &millis)); err != nil {
		return nil, err
	}
	turn := c.hub.turnOf(id)
	if turn == "" {
		t, err := c.b.Queue.TurnByKey(ctx, "", id)
		if errors.Is(err, queue.ErrNotFound) {
			return nil, noRun(id)
		}
		if err != nil {
			return nil, err
		}
		turn = t.ID
	}
	release, err := c.await()
	if err != nil {
		return nil, err
	}
	limit := min(time.Duration(min(max(millis, 1), maxWait.Milliseconds()))*time.Millisecond, maxWait)
	c.later(request, release, func() (any, error) { return c.howItEnded(id, turn, limit) })
	return nil, errAnswered
}

func noRun(id string) *frameError {
	return badFrame(fmt.Sprintf("there is no run %q among the newest. Try: chat.send with its session and the same key", api.Clip(id)))
}

// howItEnded is the answer to agent.wait.
func (c *socket) howItEnded(id, turn string, limit time.Duration) (any, error) {
	answer := map[string]any{"runId": id}
	t, err := c.waitFor(c.ctx, turn, limit)
	if errors.Is(err, context.DeadlineExceeded) {
		answer["status"] = "timeout"
		return answer, nil
	}
	if err != nil {
		return nil, err
	}
	sayHow(answer, t)
	return answer, nil
}

// sayHow adds to an answer how the run stands.
func sayHow(answer map[string]any, t queue.Turn) {
	if t.StartedAt != nil {
		answer["startedAt"] = t.StartedAt.UnixMilli()
	}
	if t.FinishedAt != nil {
		answer["endedAt"] = t.FinishedAt.UnixMilli()
	}
	switch t.Status {
	case queue.Queued, queue.Running:
		answer["status"] = inFlight
	case queue.Completed:
		answer["status"] = "ok"
	case queue.Cancelled:
		answer["status"], answer["error"], answer["stopReason"] = "error", t.Error, "aborted"
	case queue.Failed:
		answer["status"], answer["error"] = "error", t.Error
	}
}

// inFlight is the status of a run that has not ended.
const inFlight = "in_flight"

// chatSend begins a run; its answer comes as events.
func (c *socket) chatSend(ctx context.Context, id string, params api.Fields) (any, error) {
	var message, session, sessionID, key string
	err := params.TakeMembers(api.Into("message", &message), api.Into("sessionKey", &session), api.Into("sessionId", &sessionID),
		api.Into("idempotencyKey", &key))
	if err != nil {
		return nil, err
	}
	r, err := c.accept(ctx, params, message, cmp.Or(session, sessionID), "", key)
	if err != nil {
		return nil, err
	}
	status := "started"
	switch {
	case !r.created && r.turn.Status.Final():
		return map[string]any{"runId": r.id, "status": "ok"}, nil
	case !r.created:
		status = inFlight
	}
	c.respond(id, map[string]any{"runId": r.id, "status": status}, nil)
	c.hub.follow(c.b, r, c.settled())
	return nil, errAnswered
}

// chatAbort cancels a run, or all of the session that have not ended.
func (c *socket) chatAbort(ctx context.Context, _ string, params api.Fields) (any, error) {
	var session, id string
	if err := params.TakeMembers(api.Into("sessionKey", &session), api.Into("runId", &id)); err != nil {
		return nil, err
	}
	key, _, err := c.sessionKey(session, "")
	if err != nil {
		return nil, err
	}
	aborted := []string{}
	page := queue.Filter{Session: key, Status: []queue.Status{queue.Queued, queue.Running}, Limit: api.MaxPage, Bytes: api.MaxPageBytes}
	for more := true; more; {
		open, err := c.b.Queue.Turns(ctx, page)
		if err != nil {
			return nil, err
		}
		more = page.Full(open)
		for _, t := range open { // the newest first, so that none of them starts meanwhile
			page.Before = t.ID
			if id != "" && t.IdempotencyKey != id {
				continue
			}
			if _, err := c.b.Queue.Cancel(ctx, t.ID); err == nil {
				aborted = append(aborted, t.IdempotencyKey)
			} else if !errors.Is(err, queue.ErrConflict) {
				return nil, err
			}
		}
	}
	return map[string]any{"ok": true, "aborted": len(aborted) > 0, "runIds": aborted}, nil
}

const (
	// maxFollowed bounds the runs that are told at once; of further ones clients learn the end by agent.wait.
	maxFollowed = 10_000
	// followPause is how long a log that could not be read is left alone.
	followPause = time.Second
)

// followed is a turn of a generation: the one before may not have let go of it yet.
type followed struct {
	b    *api.Backend
	turn string
	only *socket // whom it is told; nil for all
}

// beginLocked notes that a turn is told, unless it is already or too many are.
func (h *Hub) beginLocked(key followed) bool {
	if h.runs[key] || h.closed || len(h.runs) >= maxFollowed {
		return false
	}
	h.runs[key] = true
	return true
}

func (h *Hub) end(key followed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.runs, key)
	h.wakeLocked()
}

// follow tells what happens to the run from now on to everybody who may read, until it ends or the gateway retires. It
// begins once ready returns; nil is at once.
func (h *Hub) follow(b *api.Backend, r run, ready func()) {
	key := followed{b: b, turn: r.turn.ID}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.beginLocked(key) {
		return
	}
	h.follows.Go(func() {
		defer h.end(key)
		if ready != nil {
			ready()
		}
		told := broadcast{run: r, after: r.turn.LastEvent, to: func(name string, payload map[string]any) { h.tellRun(r, name, payload) }}
		told.follow(h.ctx, b.Queue)
	})
}

// takeUp follows the runs that an earlier generation left unfinished, before the first client is greeted: what ends
// earlier it finds in the history, what ends later it is told.
func (h *Hub) takeUp(ctx context.Context, b *api.Backend) {
	h.taking.Lock()
	defer h.taking.Unlock()
	if h.takenUp == b {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	page := queue.Filter{Status: []queue.Status{queue.Queued, queue.Running}, Limit: historyPage}
	for {
		turns, err := b.Queue.Turns(ctx, page)
		if err != nil {
			return // the next client tries again
		}
		for _, t := range turns {
			if strings.HasPrefix(t.Session, "agent:") {
				h.follow(b, run{id: t.IdempotencyKey, session: t.Session, agent: t.Agent, turn: t}, nil)
			}
			page.Before = t.ID
		}
		if len(turns) < page.Limit {
			h.takenUp = b
			return
		}
	}
}

// broadcast turns a turn's log into events. What the log has up to after is not told again, but the text of an attempt
// is: each event with text carries all of it.
type broadcast struct {
	run   run
	after int64
	heard bool // the reader has the text up to after, so that what is new of it begins there
	to    func(name string, payload map[string]any)

	mu   sync.Mutex
	text strings.Builder
	told int         // bytes of text
	seq  int64       // of the newest text
	last time.Time   // when text was told
	next *time.Timer // tells what was held back
}

// follow takes the whole log, and what comes, until the run ends, the queue closes or ctx ends.
func (b *broadcast) follow(ctx context.Context, q *queue.Queue) {
	defer b.end()
	for after := int64(0); ; {
		err := error(nil)
		for e, failed := range q.Follow(ctx, b.run.turn.ID, after) {
			if err = failed; err != nil {
				break
			}
			b.add(e)
			after = e.Seq
		}
		if err == nil || errors.Is(err, queue.ErrClosed) || errors.Is(err, queue.ErrNotFound) {
			return
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return
		}
	}
}

func (b *broadcast) add(e queue.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := e.Seq <= b.after
	switch e.Type { //nolint:exhaustive // the others follow
	case queue.EventDelta:
		b.text.WriteString(e.Text)
		b.seq = e.Seq
		switch {
		case !old:
			b.tellSoon()
		case b.heard:
			b.told = b.text.Len()
		}
		return
	case queue.EventStarted:
		b.text.Reset()
		b.told = 0
	}
	if old {
		return
	}
	b.tellText()
	at := e.At.UnixMilli()
	switch e.Type { //nolint:exhaustive // the others say nothing to clients
	case queue.EventStarted:
		b.agent(e.Seq, "lifecycle", map[string]any{"phase": "start", "startedAt": at})
	case queue.EventInterrupted:
		b.agent(e.Seq, "lifecycle", map[string]any{"phase": "interrupted", "error": e.Text})
	case queue.EventCompleted:
		b.agent(e.Seq, "lifecycle", map[string]any{"phase": "end", "endedAt": at})
		b.chat(e.Seq, "final", map[string]any{"message": chatMessageOf("assistant", b.text.String(), e.At), "stopReason": "stop"})
	case queue.EventFailed:
		b.agent(e.Seq, "lifecycle", map[string]any{"phase": "error", "error": e.Text, "endedAt": at})
		b.chat(e.Seq, "error", map[string]any{"errorMessage": e.Text})
	case queue.EventCancelled:
		b.agent(e.Seq, "lifecycle", map[string]any{"phase": "end", "aborted": true, "endedAt": at})
		b.chat(e.Seq, "aborted", map[string]any{"stopReason": "aborted"})
	}
}

// tellSoon tells new text at once, or when some time has passed since the last. Needs the lock.
func (b *broadcast) tellSoon() {
	if b.next != nil {
		return
	}
	wait := deltaInterval*time.Duration(1+b.text.Len()/deltaGrain) - time.Since(b.last)
	if wait <= 0 {
		b.tellText()
		return
	}
	b.next = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.tellText()
	})
}

// tellText tells what is new of the text. Needs the lock.
func (b *broadcast) tellText() {
	if b.next != nil {
		b.next.Stop()
		b.next = nil
	}
	whole := b.text.String()
	if len(whole) == b.told {
		return
	}
	b.last = time.Now()
	spoken := map[string]any{"text": whole, "delta": whole[b.told:]}
	chat := map[string]any{"deltaText": whole[b.told:], "message": chatMessageOf("assistant", whole, b.last)}
	if b.told == 0 { // what an earlier attempt said is void
		spoken["replace"], chat["replace"] = true, true
	}
	b.agent(b.seq, "assistant", spoken)
	b.chat(b.seq, "delta", chat)
	b.told = len(whole)
}

func (b *broadcast) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		b.next.Stop()
	}
}

func (b *broadcast) agent(seq int64, stream string, data map[string]any) {
	b.to("agent", map[string]any{"runId": b.run.id, "seq": seq, "stream": stream, "data": data, "ts": time.Now().UnixMilli()})
}

func (b *broadcast) chat(seq int64, state string, more map[string]any) {
	payload := map[string]any{"runId": b.run.id, "seq": seq, "state": state}
	maps.Copy(payload, more)
	b.to("chat", payload)
}
