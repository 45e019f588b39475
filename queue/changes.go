package queue

// keptChanges is how many changes of turns are known at once. Whoever falls behind by more is told so.
const keptChanges = 1024

// Change is what a turn has become.
type Change struct {
	Turn    string `json:"id"`
	Session string `json:"session"`
	Lane    string `json:"lane"`
	Agent   string `json:"agent"`
	Status  Status `json:"status"`
}

// changes numbers what becomes durable, but for the text of answers, and keeps the newest changes of turns. It is
// guarded by the hub's mutex.
type changes struct {
	newest  uint64
	lost    uint64 // the number of the newest change that is not kept any more
	kept    [keptChanges]Change
	numbers [keptChanges]uint64
	next    int // where the next change goes
}

func (c *changes) note(t *Turn) {
	c.lost = c.numbers[c.next]
	c.kept[c.next] = Change{Turn: t.ID, Session: t.Session, Lane: t.Lane, Agent: t.Agent, Status: t.Status}
	c.numbers[c.next] = c.newest
	c.next = (c.next + 1) % keptChanges
}

// tell takes in one operation.
func (c *changes) tell(op operation) {
	if _, text := op.(*appendText); text {
		return
	}
	c.newest++
	if op.status().err != nil {
		return
	}
	switch op := op.(type) {
	case *acceptTurn:
		if op.first == nil {
			c.note(&op.turn)
		}
	case *startTurn:
		c.note(&op.turn)
	case *endTurn:
		c.note(&op.turn)
	case *cancelTurn:
		c.note(&op.turn)
	case *retryTurn:
		c.note(&op.turn)
	case *appendText, *changeSetting: // no turn has another status
	case *deleteTurn, *pruneTurns: // a deleted turn was final before
	}
}

// since returns the kept changes after a number, the oldest first.
func (c *changes) since(after uint64) (changed []Change, newest uint64, missed bool) {
	for i := range keptChanges {
		at := (c.next + i) % keptChanges
		if c.numbers[at] > after {
			changed = append(changed, c.kept[at])
		}
	}
	return changed, c.newest, c.lost > after
}

// Changes returns what turns have become after a number, the oldest first, and the newest number: it is the same for
// as long as neither a turn nor a lane has changed. missed reports that there were more than are known any more. It
// is cheap, and never waits for the scheduler or the store.
func (q *Queue) Changes(after uint64) (changed []Change, newest uint64, missed bool) {
	q.hub.mu.Lock()
	defer q.hub.mu.Unlock()
	if q.hub.changes.newest == after {
		return nil, after, false
	}
	return q.hub.changes.since(after)
}
