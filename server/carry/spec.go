package carry

import "fmt"

// Phase is where a connection is. The zero value is New.
type Phase uint8

// The phases. What each permits stands in the table.
const (
	New Phase = iota
	Arrived
	Idle
	Reading
	Serving
	Body
	Upgraded
	Closing
	CloseSent
	Sealed
	Carried
	Closed
	phases = iota
)

var phaseNames = [phases]string{
	"new", "arrived", "idle", "reading", "serving", "body", "upgraded", "closing", "close_sent", "sealed", "carried", "closed",
}

// String is the name that documents and tests use.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// Occurrence is what happens to a connection.
type Occurrence uint8

// The occurrences. Who raises each stands in the table.
const (
	Read Occurrence = iota
	Ended
	Begin
	BodyBegins
	BodyEnds
	Unkept
	Answered
	AnsweredMore
	Upgrade
	CloseBegins
	CloseFrameSent
	Seal
	Write
	Deadline
	CarryBegins
	CarryOff
	GiveUp
	Close
	occurrences = iota
)

var occurrenceNames = [occurrences]string{
	"read", "ended", "begin", "body_begins", "body_ends", "unkept", "answered", "answered_more", "upgrade", "close_begins", "close_frame_sent",
	"seal", "write", "deadline", "carry_begins", "carry_off", "give_up", "close",
}

// String is the name that documents and tests use.
func (o Occurrence) String() string {
	if int(o) < len(occurrenceNames) {
		return occurrenceNames[o]
	}
	return fmt.Sprintf("occurrence %d", uint8(o))
}

// Fact is what is known of a connection besides its phase; several are a set.
type Fact uint8

// The facts.
const (
	// Carrying: every connection is to be carried.
	Carrying Fact = 1 << iota
	// Gone: the client closed its side, or the connection broke.
	Gone
	// Lost: what was read and not answered is not known any more.
	Lost
	allFacts = Carrying | Gone | Lost
)

var factNames = map[Fact]string{Carrying: "carrying", Gone: "gone", Lost: "lost"}

// Has reports whether all facts of g are in f.
func (f Fact) Has(g Fact) bool { return f&g == g }

// Guard is on what facts a row decides its cell.
type Guard string

// The guards. A connection is movable while its client is there and all that was read is known. A cell with a guarded
// row has one with Otherwise.
const (
	Always       Guard = ""
	WhenCarrying Guard = "carrying"
	WhenMovable  Guard = "movable"
	WhenBoth     Guard = "carrying and movable"
	Otherwise    Guard = "otherwise"
)

// holds reports whether the guard lets its row decide.
func (g Guard) holds(f Fact) bool {
	movable := f&(Gone|Lost) == 0
	switch g {
	case WhenCarrying:
		return f.Has(Carrying)
	case WhenMovable:
		return movable
	case WhenBoth:
		return f.Has(Carrying) && movable
	case Always, Otherwise:
		return true
	}
	return false
}

// Kind says what a row does.
type Kind string

// The kinds. No cell of the matrix is blank.
const (
	// Transition moves the connection to another phase.
	Transition Kind = "transition"
	// Internal changes a fact or does something, in the same phase.
	Internal Kind = "internal"
	// Ignored changes nothing.
	Ignored Kind = "ignored"
	// Impossible cannot happen while the code is right: reported, never a crash.
	Impossible Kind = "impossible"
)

// Action is what a row does.
type Action string

// The actions.
const (
	// Keep adds what came to what is not answered, unless that is lost already.
	Keep Action = "keep what came"
	// Forget drops what was read and not answered.
	Forget Action = "forget what was read"
	// Interrupt sets a deadline that is past, so that whoever reads gives up.
	Interrupt Action = "interrupt reads"
	// Release takes the past deadline away.
	Release Action = "let reads wait again"
	// Pass does what was asked: writes the bytes, sets the deadline.
	Pass Action = "pass it on"
	// Refuse does not: the write returns ErrCarried, the deadline stays.
	Refuse Action = "refuse it"
	// Stretch sets the deadline as if the connection were idle and not new.
	Stretch Action = "stretch the deadline"
	// Wake has whoever waits for connections count again.
	Wake Action = "count connections again"
	// Carry hands the socket and what was not answered to the roster, for whoever serves next.
	Carry Action = "carry"
	// CloseSocket closes the socket.
	CloseSocket Action = "close the socket"
)

// Actions are all actions, in the order of the page.
var Actions = []Action{Keep, Forget, Interrupt, Release, Pass, Refuse, Stretch, Wake, Carry, CloseSocket}

// PhaseSpec is a row of the list of phases.
type PhaseSpec struct {
	Phase   Phase
	Means   string
	Restart string // what a restart makes of the connection; empty where it is not this process's any more
}

// OccurrenceSpec is a row of the list of occurrences.
type OccurrenceSpec struct {
	Occurrence Occurrence
	Raised     string // by whom
	Means      string
}

// Cell is the decision for one occurrence in one phase, or one of two that a guard tells apart.
type Cell struct {
	Phase      Phase
	Occurrence Occurrence
	When       Guard
	Kind       Kind
	To         Phase // where it leads; Phase unless Kind is Transition
	Do         []Action
	Sets       Fact // becomes known
	Clears     Fact // holds no more
	Why        string
}

// Table is the whole life of a connection. [Lifecycle] returns it.
type Table struct {
	Phases      []PhaseSpec
	Occurrences []OccurrenceSpec
	Cells       []Cell
}

// decisions is the table made quick: one row for each phase, occurrence and set of facts.
type decisions [phases][occurrences][allFacts + 1]*Cell

// index makes the table quick. The table is whole; see [Table.Check].
func (t Table) index() *decisions {
	var d decisions
	for i := range t.Cells {
		c := &t.Cells[i]
		for f := range allFacts + 1 {
			at := &d[c.Phase][c.Occurrence][f]
			if c.When.holds(f) && (*at == nil || (*at).When == Otherwise) {
				*at = c
			}
		}
	}
	return &d
}

var decided = Lifecycle().index()
