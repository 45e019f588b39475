package openclaw

import (
	"context"
	"errors"
	"fmt"

	"gateway/queue"
	"gateway/server/api"
)

// replayAhead is how many bytes may wait for a client before it is replayed more: it is far from being cut off then,
// however many runs it resumes.
const replayAhead = 4 << 20

// chatResume goes on telling a run to a client whose connection was cut: this connection alone is sent what the run's log
// has after the sequence that the client has seen, and what comes. From the answer on it gets the events of the run from
// there and not with those for all, so that none is missing and none comes twice.
func (c *socket) chatResume(ctx context.Context, id string, params api.Fields) (any, error) {
	var name, session string
	var after int64
	if err := params.TakeMembers(api.Into("runId", &name), api.Into("sessionKey", &session), api.Into("afterSeq", &after)); err != nil {
		return nil, err
	}
	if err := params.RefuseRest(""); err != nil {
		return nil, err
	}
	t, err := c.findRun(ctx, name, session)
	if err != nil {
		return nil, err
	}
	if after < 0 || after > t.LastEvent {
		return nil, badFrame(fmt.Sprintf("afterSeq %d is beyond this run, which is at %d. Try: the seq of the newest event that the client has, or 0", after, t.LastEvent))
	}
	release, err := c.await()
	if err != nil {
		return nil, err
	}
	r := run{id: t.IdempotencyKey, session: t.Session, agent: t.Agent, turn: t}
	key := followed{b: c.b, turn: t.ID, only: c}
	if err := c.setApart(key); err != nil {
		release()
		return nil, err
	}
	known, named := c.names(r.session, r.agent)
	answer := map[string]any{"runId": r.id, "sessionKey": known, "agentId": named, "lastSeq": t.LastEvent}
	sayHow(answer, t)
	c.respond(id, answer, nil)
	ready := c.settled()
	c.work.Go(func() {
		defer release()
		defer c.rejoin(key)
		ready()
		told := broadcast{run: r, after: after, heard: true, to: func(event string, payload map[string]any) { c.replay(r, event, payload) }}
		told.follow(c.ctx, c.b.Queue)
	})
	return nil, errAnswered
}

// findRun is the turn of a run, in the session if one is named.
func (c *socket) findRun(ctx context.Context, id, session string) (t queue.Turn, err error) {
	if id == "" {
		return t, badFrame("runId is missing. Try: the idempotencyKey of the run")
	}
	turn := ""
	if session == "" {
		turn = c.hub.turnOf(id)
	} else if session, _, err = c.sessionKey(session, ""); err != nil {
		return t, err
	}
	if turn != "" {
		t, err = c.b.Queue.Turn(ctx, turn)
	} else {
		t, err = c.b.Queue.TurnByKey(ctx, session, id)
	}
	if errors.Is(err, queue.ErrNotFound) {
		return t, noRun(id)
	}
	return t, err
}

// setApart keeps what all are told of the turn from this client.
func (c *socket) setApart(key followed) error {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resumed[key.turn] {
		return badFrame("this connection resumes the run already: its events follow")
	}
	if !h.beginLocked(key) {
		return &frameError{
			Code: codeUnavailable, Message: "too many runs are followed. Try: again later, or agent.wait", Retryable: true, RetryAfterMS: 1000,
		}
	}
	if c.resumed == nil {
		c.resumed = map[string]bool{}
	}
	c.resumed[key.turn] = true
	return nil
}

// rejoin ends the resuming of a turn, once nothing of it is left that all are told: the client has had it.
func (c *socket) rejoin(key followed) {
	h := c.hub
	h.end(key)
	h.until(c.ctx, func() bool { return !h.runs[followed{b: key.b, turn: key.turn}] })
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.resumed, key.turn)
}

// taken is closed once no more than replayAhead waits for the client.
func (c *socket) taken() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == nil {
		c.room = make(chan struct{})
	}
	room := c.room
	c.makeRoomLocked()
	return room
}

func (c *socket) makeRoomLocked() {
	if c.room != nil && c.buffered <= replayAhead {
		close(c.room)
		c.room = nil
	}
}

// replay sends the client an event of a run that it resumes. It waits for a client that has much to take already.
func (c *socket) replay(r run, event string, payload map[string]any) {
	c.replaying.Lock()
	defer c.replaying.Unlock()
	select {
	case <-c.taken():
	case <-c.ctx.Done():
		return
	}
	payload["sessionKey"], payload["agentId"] = c.names(r.session, r.agent)
	c.event(event, payload)
}
