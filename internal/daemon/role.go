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
	// continue, so until the predecessor sends serve, this process changes nothing but the store.
	candidate role = "candidate"
	// owner: the lock, the files that name its owner, the listeners and the connections are this process's own.
	owner role = "owner"
	// handedOver: they are the successor's. This process only ends the answers that it still gives.
	handedOver role = "handed over"
)

// occasion is what may change a role.
type occasion string

const (
	lockTaken     occasion = "the lock is taken"
	serveReceived occasion = "the predecessor has sent serve, or has died"
	serveSent     occasion = "this process has sent serve to its successor"
)

// roleMoves decides each role × occasion.
var roleMoves = []struct {
	from role
	on   occasion
	to   role // empty when it cannot come
	why  string
}{
	{fresh, lockTaken, owner, "nobody else has the lock"},
	{fresh, serveReceived, "", "there is no predecessor"},
	{fresh, serveSent, "", "no successor is prepared before this process serves"},
	{nextImage, lockTaken, owner, "the image before this one is gone"},
	{nextImage, serveReceived, "", "the image before this one is gone"},
	{nextImage, serveSent, "", "no successor is prepared before this process serves"},
	{candidate, lockTaken, candidate, "the predecessor has it too, and may continue"},
	{candidate, serveReceived, owner, "the predecessor never takes it back"},
	{candidate, serveSent, "", "no successor is prepared before this process serves"},
	{owner, lockTaken, owner, "a restart in this process keeps it"},
	{owner, serveReceived, "", "there is no predecessor left"},
	{owner, serveSent, handedOver, "the point of no return"},
	{handedOver, lockTaken, "", "this process starts nothing again"},
	{handedOver, serveReceived, "", "there is no predecessor left"},
	{handedOver, serveSent, "", "there is one successor"},
}

// next is the role after an occasion. An occasion that cannot come in the role is an error, and a bug.
func (r role) next(on occasion) (role, error) {
	for _, m := range roleMoves {
		if m.from == r && m.on == on && m.to != "" {
			return m.to, nil
		}
	}
	return r, fmt.Errorf("gateway: a process in the role %q cannot do this: %s; please report it", r, on)
}
