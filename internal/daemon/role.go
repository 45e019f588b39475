package daemon

import "fmt"

// role is the part that this process has in a hand-over.
type role string

const (
	// fresh: no gateway hands over to this process. It owns nothing yet.
	fresh role = "fresh"
	// nextImage: this image has replaced another one in the same process, and gets all that the other one owned.
	nextImage role = "next image"
	// candidate: this process gets copies of all that its predecessor owns. The predecessor may end this process and
	// go on, so until it is told to serve it touches nothing but the store.
	candidate role = "candidate"
	// owner: the lock, the files that name its owner, the listeners and the connections are this process's own.
	owner role = "owner"
	// handedOver: they are the successor's. This process only ends the answers that it still gives.
	handedOver role = "handed over"
)

// occasion is what may change a role.
type occasion string

const (
	lockTaken       occasion = "the lock is taken"
	toldToServe     occasion = "the predecessor says serve, or has died"
	successorServes occasion = "the successor is told to serve"
)

// roleMoves decides each role × occasion.
var roleMoves = []struct {
	from role
	on   occasion
	to   role // empty when it cannot come
	why  string
}{
	{fresh, lockTaken, owner, "nobody else has the lock"},
	{fresh, toldToServe, "", "there is no predecessor"},
	{fresh, successorServes, "", "nobody prepares a successor before this process serves"},
	{nextImage, lockTaken, owner, "the image before this one is gone"},
	{nextImage, toldToServe, "", "the image before this one is gone"},
	{nextImage, successorServes, "", "nobody prepares a successor before this process serves"},
	{candidate, lockTaken, candidate, "the predecessor has it too, and may go on"},
	{candidate, toldToServe, owner, "the predecessor never takes it back"},
	{candidate, successorServes, "", "nobody prepares a successor before this process serves"},
	{owner, lockTaken, owner, "a restart in this process keeps it"},
	{owner, toldToServe, "", "there is no predecessor any more"},
	{owner, successorServes, handedOver, "the point of no return"},
	{handedOver, lockTaken, "", "this process starts nothing any more"},
	{handedOver, toldToServe, "", "there is no predecessor any more"},
	{handedOver, successorServes, "", "there is one successor"},
}

// next is the role after an occasion. An error says that the occasion cannot come in this role; that is a bug.
func (r role) next(on occasion) (role, error) {
	for _, m := range roleMoves {
		if m.from == r && m.on == on && m.to != "" {
			return m.to, nil
		}
	}
	return r, fmt.Errorf("gateway: a process that is %s in a hand-over cannot come to this: %s; please report it", r, on)
}
