package queue

// An occurrence is what can happen to a turn: a client asks for it, its attempt ends in it, or the gateway does it.
type occurrence string

// The occurrences. Who raises each one is written in the table below.
const (
	onAccept           occurrence = "accept"
	onJoin             occurrence = "join"
	onStart            occurrence = "start"
	onText             occurrence = "text"
	onComplete         occurrence = "complete"
	onFailure          occurrence = "fail"
	onTemporaryFailure occurrence = "fail_temporarily"
	onUnwritable       occurrence = "unwritable"
	onInterruption     occurrence = "interrupt"
	onCrash            occurrence = "crash"
	onCancel           occurrence = "cancel"
	onSupersede        occurrence = "supersede"
	onRetry            occurrence = "retry"
	onDelete           occurrence = "delete"
	onPrune            occurrence = "prune"
)

// absent is the status of a turn that is not in the store: not yet, or not any more.
const absent Status = ""

// facts are what the guards of the table ask about. A guard holds when all facts of When and none of Unless are true.
type facts uint8

const (
	sameRequest     facts = 1 << iota // the key names the turn, and agent and input are those of the turn
	joinable                          // the turn is the last of its session, of the same kind, and has never started
	agentCalled                       // the agent was called in this attempt
	mayRerun                          // on_interrupt of the turn is retry
	attemptsLeft                      // fewer attempts were counted than max_attempts
	beyondRetention                   // the turn finished longer ago than the retention
)

// factNames are the facts as the page prints them, lowest bit first: when one holds, and when it does not.
var factNames = [][2]string{
	{"same key, same request", "same key, other request"},
	{"last of its session, same kind, never started", "cannot be joined"},
	{"agent called", "agent not called yet"},
	{"`on_interrupt: retry`", "`on_interrupt: fail`"},
	{"attempts left", "no attempt left"},
	{"older than the retention", "not older than the retention"},
}

// ruleKind says what a rule does. No cell of the (status, occurrence) matrix is blank.
type ruleKind string

const (
	// transition gives the turn another status.
	transition ruleKind = "transition"
	// internal writes an event and leaves the status as it is.
	internal ruleKind = "internal"
	// unaffected changes nothing, and that is no error.
	unaffected ruleKind = "unaffected"
	// refused changes nothing and returns the rule's error.
	refused ruleKind = "refused"
	// impossible cannot happen while the code is right: the store returns errRefused and changes nothing, and the
	// scheduler logs and counts it ([Stats].Refused).
	impossible ruleKind = "impossible"
)

// attemptCost is what a rule does to [Turn.Attempt], which max_attempts bounds.
type attemptCost string

const (
	countsAttempt attemptCost = "+1"
	givesBack     attemptCost = "−1"
	countsAnew    attemptCost = "0"
)

// slotUse is what a rule does to the slot of the turn's lane.
type slotUse string

const (
	takesSlot slotUse = "takes"
	freesSlot slotUse = "frees"
)

// rule is the decision for one occurrence in one status. A cell has more than one where guards tell them apart.
type rule struct {
	Status     Status
	Occurrence occurrence
	// When and Unless are the guard; both zero: the rule always holds.
	When, Unless facts
	Kind         ruleKind
	// To is the status afterwards; absent forgets the turn with its events and keys. Transitions only.
	To Status
	// Event is the one that is written, the last one when text still comes before it; empty for none.
	Event EventType
	// Attempt is the cost in [Turn.Attempt]; empty for none.
	Attempt attemptCost
	// Run counts one more of [Turn.Runs].
	Run bool
	// Slot is what becomes of the lane's slot; empty when the turn has none before and after.
	Slot slotUse
	// Pause makes the turn wait before its next start; see [Config].RetryBackoff.
	Pause bool
	// Err is what the caller gets. Refusals only.
	Err error
	Why string
}

// statusSpec is a row of the list of statuses.
type statusSpec struct {
	Name Status
	// Means is true whenever the status can be read.
	Means string
	// Kept is what a crash or a power loss leaves of it.
	Kept string
}

// occurrenceSpec is a row of the list of occurrences.
type occurrenceSpec struct {
	Name   occurrence
	Raised string
}

// lifecycle is the whole life of a turn.
type lifecycle struct {
	Statuses    []statusSpec
	Occurrences []occurrenceSpec
	Rules       []rule
}

// turnLifecycle returns the table, a fresh copy at each call. The store and the scheduler look up in it what becomes of
// a turn, docs/turns.md is generated from it, and a test walks every cell of it on a real store.
func turnLifecycle() lifecycle {
	to := func(from Status, on occurrence, to Status, event EventType, why string) rule {
		return rule{Status: from, Occurrence: on, Kind: transition, To: to, Event: event, Why: why}
	}
	within := func(s Status, on occurrence, event EventType, why string) rule {
		return rule{Status: s, Occurrence: on, Kind: internal, Event: event, Why: why}
	}
	same := func(s Status, on occurrence, why string) rule {
		return rule{Status: s, Occurrence: on, Kind: unaffected, Why: why}
	}
	no := func(s Status, on occurrence, err error, why string) rule {
		return rule{Status: s, Occurrence: on, Kind: refused, Err: err, Why: why}
	}
	never := func(s Status, on occurrence, why string) rule {
		return rule{Status: s, Occurrence: on, Kind: impossible, Why: why}
	}
	when := func(f facts, r rule) rule { r.When = f; return r }
	unless := func(f facts, r rule) rule { r.Unless = f; return r }
	frees := func(r rule) rule { r.Slot = freesSlot; return r }
	costs := func(c attemptCost, r rule) rule { r.Attempt = c; return r }
	pauses := func(r rule) rule { r.Pause = true; return r }

	started := to(Queued, onStart, Running, EventStarted, "it is at the head of its session, and its lane has a free slot")
	started.Attempt, started.Run, started.Slot = countsAttempt, true, takesSlot

	return lifecycle{
		Statuses: []statusSpec{
			{absent, "the gateway does not have the turn: it was never accepted, or was deleted or pruned", "nothing"},
			{Queued, "the turn is on disk and waits for its next start", "the turn, its input and its place in the session"},
			{Running, "an attempt is under way and holds a slot of its lane", "the turn, and the text that was shown"},
			{Completed, "the agent ended well, and its whole answer is on disk", "the turn and its answer"},
			{Failed, "the turn ended without an answer; its error has the reason", "the turn, its error and the text so far"},
			{Cancelled, "a client ended the turn, or a newer message of its session did", "the turn, its error and the text so far"},
		},

		Occurrences: []occurrenceSpec{
			{onAccept, "a client sends a message, or sends one again"},
			{onJoin, "a client sends a message with the mode collect"},
			{onStart, "the scheduler, when the turn is at the head of its session and its lane has a free slot"},
			{onText, "the agent writes text"},
			{onComplete, "the agent ends well"},
			{onFailure, "the agent ends with an error, panics, takes longer than its timeout or writes more than `turns.max_output`"},
			{onTemporaryFailure, "the agent ends with an error that may go away: exit code 75, an endpoint that is away or overloaded"},
			{onUnwritable, "the store, when it cannot write the result of an attempt because of the result itself; what the disk refuses is written again instead"},
			{onInterruption, "the gateway stops, or a drain reaches its deadline"},
			{onCrash, "the next start, when the gateway before it crashed, was killed or lost power"},
			{onCancel, "a client cancels the turn"},
			{onSupersede, "a newer message of the session has the mode interrupt"},
			{onRetry, "a client retries the turn"},
			{onDelete, "a client deletes the turn"},
			{onPrune, "the gateway, every hour, for each turn that has ended"},
		},

		Rules: []rule{
			// Not in the store.
			to(absent, onAccept, Queued, "", "the turn is on disk before the client gets its answer, and is the last of its session"),
			same(absent, onJoin, "there is nothing to join; the message becomes a turn of its own"),
			never(absent, onStart, "only a turn that is on disk starts"),
			never(absent, onText, "nothing runs"),
			never(absent, onComplete, "nothing runs"),
			never(absent, onFailure, "nothing runs"),
			never(absent, onTemporaryFailure, "nothing runs"),
			never(absent, onUnwritable, "nothing runs"),
			same(absent, onInterruption, "it was never acknowledged, or is gone"),
			same(absent, onCrash, "it was never acknowledged, or is gone"),
			no(absent, onCancel, ErrNotFound, "there is no such turn"),
			same(absent, onSupersede, "there is no such turn"),
			no(absent, onRetry, ErrNotFound, "there is no such turn"),
			no(absent, onDelete, ErrNotFound, "there is no such turn"),
			same(absent, onPrune, "it was deleted in the meantime"),

			// Queued.
			when(sameRequest, same(Queued, onAccept, "a repeat of the request gets the turn that it made first")),
			unless(sameRequest, no(Queued, onAccept, ErrKeyReused, "one key names one request")),
			when(joinable, within(Queued, onJoin, EventCollected, "the input is added to that of the turn")),
			unless(joinable, same(Queued, onJoin, "the message becomes a turn of its own")),
			started,
			never(Queued, onText, "nothing runs"),
			never(Queued, onComplete, "nothing runs"),
			never(Queued, onFailure, "nothing runs"),
			never(Queued, onTemporaryFailure, "nothing runs"),
			never(Queued, onUnwritable, "nothing runs"),
			same(Queued, onInterruption, "it waits for the next gateway"),
			same(Queued, onCrash, "it is on disk and waits as before"),
			to(Queued, onCancel, Cancelled, EventCancelled, "cancelled before it started"),
			to(Queued, onSupersede, Cancelled, EventCancelled, "the newer message takes its place"),
			no(Queued, onRetry, ErrConflict, "it waits for its start already"),
			no(Queued, onDelete, ErrConflict, "only a turn that has ended can be deleted; cancel it first"),
			same(Queued, onPrune, "it has not finished, so it is never old"),

			// Running.
			when(sameRequest, same(Running, onAccept, "a repeat of the request gets the turn that it made first")),
			unless(sameRequest, no(Running, onAccept, ErrKeyReused, "one key names one request")),
			same(Running, onJoin, "the agent has its input already; the message becomes a turn of its own"),
			never(Running, onStart, "a session runs one turn at a time, and a turn one attempt"),
			within(Running, onText, EventDelta, "text is on disk before anybody sees it"),
			frees(to(Running, onComplete, Completed, EventCompleted, "also when it ends well although it was interrupted")),
			frees(to(Running, onFailure, Failed, EventFailed, "another attempt would fail as well")),
			when(mayRerun|attemptsLeft, pauses(frees(to(Running, onTemporaryFailure, Queued, EventInterrupted, "it returns to the head of its session; the attempt counts")))),
			when(mayRerun, unless(attemptsLeft, frees(to(Running, onTemporaryFailure, Failed, EventFailed, "max_attempts is reached")))),
			unless(mayRerun, frees(to(Running, onTemporaryFailure, Failed, EventFailed, "a turn that may not run twice is not retried"))),
			frees(to(Running, onUnwritable, Failed, EventFailed, "its session must not wait for ever; the error has the reason")),
			unless(agentCalled, costs(givesBack, frees(to(Running, onInterruption, Queued, EventInterrupted, "it returns to the head of its session; the agent did nothing")))),
			when(agentCalled|mayRerun, costs(givesBack, frees(to(Running, onInterruption, Queued, EventInterrupted, "it returns to the head of its session; what the gateway did costs no attempt")))),
			when(agentCalled, unless(mayRerun, frees(to(Running, onInterruption, Failed, EventFailed, "a turn that may not run twice fails instead")))),
			when(mayRerun|attemptsLeft, pauses(frees(to(Running, onCrash, Queued, EventInterrupted, "it returns to the head of its session; the attempt counts, so that a turn which kills the gateway does not do so for ever")))),
			when(mayRerun, unless(attemptsLeft, frees(to(Running, onCrash, Failed, EventFailed, "max_attempts is reached")))),
			unless(mayRerun, frees(to(Running, onCrash, Failed, EventFailed, "a turn that may not run twice fails instead"))),
			frees(to(Running, onCancel, Cancelled, EventCancelled, "its agent is told to end; what it returns does not count")),
			frees(to(Running, onSupersede, Cancelled, EventCancelled, "its agent is told to end; the newer message starts next")),
			no(Running, onRetry, ErrConflict, "it runs already"),
			no(Running, onDelete, ErrConflict, "only a turn that has ended can be deleted; cancel it first"),
			same(Running, onPrune, "it has not finished, so it is never old"),

			// Completed.
			when(sameRequest, same(Completed, onAccept, "a repeat of the request gets the turn that it made first")),
			unless(sameRequest, no(Completed, onAccept, ErrKeyReused, "one key names one request")),
			same(Completed, onJoin, "the message becomes a turn of its own"),
			never(Completed, onStart, "a turn completes once"),
			never(Completed, onText, "nothing runs"),
			never(Completed, onComplete, "a turn completes once"),
			never(Completed, onFailure, "nothing runs"),
			never(Completed, onTemporaryFailure, "nothing runs"),
			never(Completed, onUnwritable, "its result is on disk"),
			same(Completed, onInterruption, "its answer is on disk"),
			same(Completed, onCrash, "its answer is on disk"),
			no(Completed, onCancel, ErrConflict, "it has ended"),
			same(Completed, onSupersede, "it has ended"),
			no(Completed, onRetry, ErrConflict, "it has its answer; send the message again for another"),
			to(Completed, onDelete, absent, "", "forgotten, with its events and its key"),
			when(beyondRetention, to(Completed, onPrune, absent, "", "forgotten, with its events and its key")),
			unless(beyondRetention, same(Completed, onPrune, "it is kept")),

			// Failed.
			when(sameRequest, same(Failed, onAccept, "a repeat of the request gets the turn that it made first; retry runs it again")),
			unless(sameRequest, no(Failed, onAccept, ErrKeyReused, "one key names one request")),
			same(Failed, onJoin, "the message becomes a turn of its own"),
			never(Failed, onStart, "only retry brings it back"),
			never(Failed, onText, "nothing runs"),
			never(Failed, onComplete, "nothing runs"),
			never(Failed, onFailure, "nothing runs"),
			never(Failed, onTemporaryFailure, "nothing runs"),
			never(Failed, onUnwritable, "nothing runs"),
			same(Failed, onInterruption, "it has ended"),
			same(Failed, onCrash, "it has ended"),
			no(Failed, onCancel, ErrConflict, "it has ended"),
			same(Failed, onSupersede, "it has ended"),
			costs(countsAnew, to(Failed, onRetry, Queued, EventRequeued, "it returns to its place in the session, before all that was accepted later")),
			to(Failed, onDelete, absent, "", "forgotten, with its events and its key"),
			when(beyondRetention, to(Failed, onPrune, absent, "", "forgotten, with its events and its key")),
			unless(beyondRetention, same(Failed, onPrune, "it is kept")),

			// Cancelled.
			when(sameRequest, same(Cancelled, onAccept, "a repeat of the request gets the turn that it made first; retry runs it again")),
			unless(sameRequest, no(Cancelled, onAccept, ErrKeyReused, "one key names one request")),
			same(Cancelled, onJoin, "the message becomes a turn of its own"),
			never(Cancelled, onStart, "only retry brings it back"),
			never(Cancelled, onText, "nothing runs"),
			never(Cancelled, onComplete, "nothing runs"),
			never(Cancelled, onFailure, "nothing runs"),
			never(Cancelled, onTemporaryFailure, "nothing runs"),
			never(Cancelled, onUnwritable, "nothing runs"),
			same(Cancelled, onInterruption, "it has ended"),
			same(Cancelled, onCrash, "it has ended"),
			no(Cancelled, onCancel, ErrConflict, "it has ended"),
			same(Cancelled, onSupersede, "it has ended"),
			costs(countsAnew, to(Cancelled, onRetry, Queued, EventRequeued, "it returns to its place in the session, before all that was accepted later")),
			to(Cancelled, onDelete, absent, "", "forgotten, with its events and its key"),
			when(beyondRetention, to(Cancelled, onPrune, absent, "", "forgotten, with its events and its key")),
			unless(beyondRetention, same(Cancelled, onPrune, "it is kept")),
		},
	}
}
