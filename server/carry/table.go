package carry

// Lifecycle returns the table of a connection, a fresh copy at each call.
func Lifecycle() Table {
	cell := func(p Phase, o Occurrence, k Kind, to Phase, when Guard, why string, do ...Action) Cell {
		return Cell{Phase: p, Occurrence: o, When: when, Kind: k, To: to, Do: do, Why: why}
	}
	to := func(p Phase, o Occurrence, to Phase, why string, do ...Action) Cell {
		return cell(p, o, Transition, to, Always, why, do...)
	}
	// if_ is followed by or, which decides for every other combination of facts.
	if_ := func(when Guard, c Cell) Cell { c.When = when; return c } //nolint:revive // if is a keyword
	or := func(c Cell) Cell { c.When = Otherwise; return c }
	stay := func(p Phase, o Occurrence, why string, do ...Action) Cell {
		return cell(p, o, Internal, p, Always, why, do...)
	}
	ignored := func(p Phase, o Occurrence, why string) Cell { return cell(p, o, Ignored, p, Always, why) }
	sets := func(f Fact, c Cell) Cell { c.Sets = f; return c }
	clears := func(f Fact, c Cell) Cell { c.Clears = f; return c }

	t := Table{
		Phases: []PhaseSpec{
			{New, "accepted, or carried here with bytes to read again; net/http has read nothing of it here", "carried"},
			{Arrived, "carried here between two requests: net/http takes it for a new connection", "carried"},
			{Idle, "every request that came is answered", "carried"},
			{Reading, "net/http reads the head of a request; no handler has the request", "carried with what was read"},
			{Serving, "a handler has the request", "the handler gives it up, and it is carried with its request; or it is answered here first, then carried"},
			{Body, "a handler reads the body of the request", "the read is interrupted, and the handler gives the connection up: carried with what was read"},
			{Upgraded, "it speaks WebSocket", "not carried: its client is told to come back"},
			{Closing, "its close frame is the next one that is written", "not carried yet: its client is being told to come back"},
			{CloseSent, "the close frame is written; only the client's own is missing", "carried, so that nobody waits for the client"},
			{Sealed, "the TLS handshake was answered: only this process knows the keys", "stays; the successor answers its requests through this process"},
			{Carried, "it belongs to whoever serves next", ""},
			{Closed, "its socket is closed", ""},
		},
		Occurrences: []OccurrenceSpec{
			{Read, "net/http or the WebSocket", "bytes came, or bytes that were carried here are read again"},
			{Ended, "the client", "it closed its side, or the connection broke"},
			{Begin, "the handler", "it has a request"},
			{BodyBegins, "the handler", "it reads the body of the request"},
			{BodyEnds, "the handler", "it has read the body, or the read was interrupted"},
			{Unkept, "the handler; a read", "what was read cannot be kept, or not told apart from what was answered"},
			{Answered, "net/http", "the request is answered, and nothing came behind it"},
			{AnsweredMore, "net/http", "the request is answered, and something came behind it, or may have come"},
			{Upgrade, "the handler", "the upgrade to WebSocket is answered"},
			{CloseBegins, "the WebSocket", "nothing but the close frame and control frames will be written"},
			{CloseFrameSent, "the WebSocket", "the close frame is written"},
			{Seal, "net/http", "the answer to a TLS handshake is to be written"},
			{Write, "net/http, the handler or the WebSocket", "other bytes are to be written"},
			{Deadline, "net/http or the handler", "the deadline of reads is to be set"},
			{CarryBegins, "the roster", "every connection is to be carried"},
			{CarryOff, "the roster", "no connection is to be carried after all"},
			{GiveUp, "the handler", "it has taken the connection from net/http, to be carried"},
			{Close, "net/http, the WebSocket or the server", "the connection is to be closed"},
		},
		Cells: []Cell{
			// New
			to(New, Read, Reading, "a request begins to come", Keep),
			sets(Gone, stay(New, Ended, "its client left without a request")),
			if_(WhenCarrying, stay(New, Seal, "the next image answers the handshake", Refuse)),
			or(to(New, Seal, Sealed, "the keys are known to this process only", Pass, Forget, Wake)),
			if_(WhenCarrying, stay(New, Deadline, "the past deadline makes net/http give the connection up", Refuse)),
			or(stay(New, Deadline, "the deadline is net/http's", Pass)),
			sets(Carrying, stay(New, CarryBegins, "net/http is made to give it up", Interrupt)),
			if_(WhenCarrying, clears(Carrying, stay(New, CarryOff, "net/http waits for a request again", Release))),
			or(ignored(New, CarryOff, "carrying has not begun")),
			if_(WhenBoth, to(New, Close, Carried, "net/http gives it up", Carry)),
			or(to(New, Close, Closed, "nobody waits for it", CloseSocket)),

			// Arrived
			to(Arrived, Read, Reading, "a request begins to come; line ends before it are passed over", Keep),
			sets(Gone, stay(Arrived, Ended, "its client left without a further request")),
			if_(WhenCarrying, stay(Arrived, Deadline, "the past deadline makes net/http give the connection up", Refuse)),
			or(stay(Arrived, Deadline, "net/http expects a first request soon; this one may take as long as a further one", Stretch)),
			sets(Carrying, stay(Arrived, CarryBegins, "net/http is made to give it up", Interrupt)),
			if_(WhenCarrying, clears(Carrying, stay(Arrived, CarryOff, "net/http waits for a request again", Release))),
			or(ignored(Arrived, CarryOff, "carrying has not begun")),
			if_(WhenBoth, to(Arrived, Close, Carried, "net/http gives it up", Carry)),
			or(to(Arrived, Close, Closed, "nobody waits for it", CloseSocket)),

			// Idle
			to(Idle, Read, Reading, "a further request begins to come", Keep),
			sets(Gone, stay(Idle, Ended, "its client has all its answers")),
			if_(WhenCarrying, stay(Idle, Deadline, "the past deadline makes net/http give the connection up", Refuse)),
			or(stay(Idle, Deadline, "the deadline is net/http's", Pass)),
			sets(Carrying, stay(Idle, CarryBegins, "net/http is made to give it up", Interrupt)),
			if_(WhenCarrying, clears(Carrying, stay(Idle, CarryOff, "net/http waits for a request again", Release))),
			or(ignored(Idle, CarryOff, "carrying has not begun")),
			if_(WhenBoth, to(Idle, Close, Carried, "net/http gives it up", Carry)),
			or(to(Idle, Close, Closed, "nobody waits for an answer", CloseSocket)),

			// Reading
			stay(Reading, Read, "more of the request came", Keep),
			sets(Gone, stay(Reading, Ended, "its client left in the middle of a request")),
			to(Reading, Begin, Serving, "the head of the request is whole"),
			sets(Lost, stay(Reading, Unkept, "nobody can read the request again", Forget)),
			if_(WhenCarrying, to(Reading, Answered, Idle, "net/http answered it without a handler, such as OPTIONS *; then it is made to give the connection up", Interrupt)),
			or(to(Reading, Answered, Idle, "net/http answered it without a handler, such as OPTIONS *")),
			if_(WhenCarrying, stay(Reading, AnsweredMore, "net/http answered one without a handler, and is made to give the connection up", Interrupt)),
			or(ignored(Reading, AnsweredMore, "net/http answered one without a handler, and the next one is being read")),
			if_(WhenCarrying, stay(Reading, Seal, "the next image answers the handshake", Refuse)),
			or(to(Reading, Seal, Sealed, "the keys are known to this process only", Pass, Forget, Wake)),
			if_(WhenCarrying, stay(Reading, Write, "net/http takes the line that the interruption cut for a bad request, and answers 400", Refuse)),
			or(stay(Reading, Write, "net/http answers what is no request", Pass)),
			if_(WhenCarrying, stay(Reading, Deadline, "the past deadline makes net/http give the connection up", Refuse)),
			or(stay(Reading, Deadline, "the deadline is net/http's", Pass)),
			sets(Carrying, stay(Reading, CarryBegins, "net/http is made to give it up", Interrupt)),
			if_(WhenCarrying, clears(Carrying, stay(Reading, CarryOff, "net/http waits for the rest of the request again", Release))),
			or(ignored(Reading, CarryOff, "carrying has not begun")),
			if_(WhenBoth, to(Reading, Close, Carried, "net/http gives it up; what was read goes with it", Carry)),
			or(to(Reading, Close, Closed, "the rest of the request did not come, or was no request", CloseSocket)),

			// Serving
			stay(Serving, Read, "net/http reads on, to see whether the client leaves", Keep),
			sets(Gone, stay(Serving, Ended, "its client waits for no answer")),
			if_(WhenCarrying, to(Serving, BodyBegins, Body, "whoever serves next reads it again", Interrupt)),
			or(to(Serving, BodyBegins, Body, "the handler waits for the client")),
			sets(Lost, stay(Serving, Unkept, "the request was too large, was refused while it came, or its end is not known", Forget)),
			if_(WhenCarrying, to(Serving, Answered, Idle, "net/http is made to give the connection up", Interrupt)),
			or(to(Serving, Answered, Idle, "the client may ask again")),
			if_(WhenCarrying, to(Serving, AnsweredMore, Reading, "net/http is made to give the connection up; what came behind is kept", Interrupt)),
			or(to(Serving, AnsweredMore, Reading, "the next request came before the answer")),
			to(Serving, Upgrade, Upgraded, "from now on there are frames and no requests", Forget),
			stay(Serving, Write, "it is answered", Pass),
			stay(Serving, Deadline, "the deadline is net/http's, or the handler's", Pass),
			sets(Carrying, stay(Serving, CarryBegins, "only the handler may give it up now")),
			if_(WhenCarrying, clears(Carrying, stay(Serving, CarryOff, "it goes on here", Release))),
			or(ignored(Serving, CarryOff, "carrying has not begun")),
			if_(WhenMovable, to(Serving, GiveUp, Carried, "the request goes with it", Carry)),
			or(to(Serving, GiveUp, Closed, "its client left, or the request cannot be read again", CloseSocket)),
			to(Serving, Close, Closed, "its answer was the last, or was cut", CloseSocket),

			// Body
			stay(Body, Read, "more of the body came", Keep),
			sets(Gone, stay(Body, Ended, "the rest of the body does not come")),
			to(Body, BodyEnds, Serving, "the handler goes on"),
			sets(Lost, stay(Body, Unkept, "the body is too large to be carried", Forget)),
			stay(Body, Write, "100 Continue, or the request is refused while it comes", Pass),
			if_(WhenCarrying, stay(Body, Deadline, "the past deadline interrupts the read", Refuse)),
			or(stay(Body, Deadline, "the deadline is the handler's", Pass)),
			sets(Carrying, stay(Body, CarryBegins, "the handler is made to give it up", Interrupt)),
			if_(WhenCarrying, clears(Carrying, stay(Body, CarryOff, "the handler waits for the client again", Release))),
			or(ignored(Body, CarryOff, "carrying has not begun")),
			to(Body, Close, Closed, "the server ends", CloseSocket),

			// Upgraded
			ignored(Upgraded, Read, "frames are not kept: the client asks again for what it waits for"),
			sets(Gone, stay(Upgraded, Ended, "its client left")),
			to(Upgraded, CloseBegins, Closing, "its client is told to come back, or is sent away"),
			stay(Upgraded, Write, "a frame", Pass),
			stay(Upgraded, Deadline, "the deadline is the WebSocket's", Pass),
			sets(Carrying, stay(Upgraded, CarryBegins, "the server tells its client to come back")),
			if_(WhenCarrying, clears(Carrying, stay(Upgraded, CarryOff, "it goes on here", Release))),
			or(ignored(Upgraded, CarryOff, "carrying has not begun")),
			to(Upgraded, Close, Closed, "it ends without a close frame", CloseSocket),

			// Closing
			ignored(Closing, Read, "frames are not kept"),
			sets(Gone, stay(Closing, Ended, "its client left first")),
			ignored(Closing, CloseBegins, "it is being closed already"),
			if_(WhenBoth, to(Closing, CloseFrameSent, Carried, "its client closes when it gets to it, and nobody waits for that here", Carry)),
			or(to(Closing, CloseFrameSent, CloseSent, "its client closes when it gets to it")),
			stay(Closing, Write, "a control frame", Pass),
			stay(Closing, Deadline, "the deadline is the WebSocket's", Pass),
			sets(Carrying, stay(Closing, CarryBegins, "its close frame is about to be written")),
			if_(WhenCarrying, clears(Carrying, stay(Closing, CarryOff, "it is closed here", Release))),
			or(ignored(Closing, CarryOff, "carrying has not begun")),
			to(Closing, Close, Closed, "it ends without a close frame", CloseSocket),

			// CloseSent
			ignored(CloseSent, Read, "what the client sends before its close frame is dropped"),
			sets(Gone, stay(CloseSent, Ended, "its client has closed")),
			ignored(CloseSent, CloseBegins, "its close frame is written"),
			stay(CloseSent, Write, "a control frame", Pass),
			stay(CloseSent, Deadline, "the deadline is the WebSocket's", Pass),
			if_(WhenMovable, sets(Carrying, to(CloseSent, CarryBegins, Carried, "nobody waits for its client here", Carry))),
			or(sets(Carrying, stay(CloseSent, CarryBegins, "its client has closed; it ends by itself"))),
			if_(WhenCarrying, clears(Carrying, stay(CloseSent, CarryOff, "it ends here", Release))),
			or(ignored(CloseSent, CarryOff, "carrying has not begun")),
			to(CloseSent, Close, Closed, "its client has closed, or took too long", CloseSocket),

			// Sealed
			ignored(Sealed, Read, "ciphertext is of no use to anybody else"),
			sets(Gone, stay(Sealed, Ended, "its client left")),
			stay(Sealed, Write, "ciphertext", Pass),
			stay(Sealed, Deadline, "the deadline is net/http's", Pass),
			sets(Carrying, stay(Sealed, CarryBegins, "it stays: the successor answers its requests through this process")),
			if_(WhenCarrying, clears(Carrying, stay(Sealed, CarryOff, "it was not interrupted"))),
			or(ignored(Sealed, CarryOff, "carrying has not begun")),
			to(Sealed, Close, Closed, "net/http closes it", CloseSocket),

			// Carried
			stay(Carried, Write, "whoever serves next answers", Refuse),
			stay(Carried, Seal, "the next image answers the handshake", Refuse),
			stay(Carried, Deadline, "its deadlines are those of whoever serves next", Refuse),

			// Closed
			stay(Closed, Write, "the socket returns that it is closed", Pass),
			stay(Closed, Seal, "the socket returns that it is closed", Pass),
			stay(Closed, Deadline, "the socket returns that it is closed", Pass),
		},
	}

	never := func(p Phase, why string, os ...Occurrence) {
		for _, o := range os {
			t.Cells = append(t.Cells, cell(p, o, Impossible, p, Always, why))
		}
	}
	const noFrames, noHandler, noTLS = "it speaks HTTP", "no handler has a request", "a TLS connection is never here"
	never(New, "nothing was read", Unkept, Answered, AnsweredMore, Write)
	never(New, noHandler, Begin, BodyBegins, BodyEnds, GiveUp)
	never(New, noFrames, Upgrade, CloseBegins, CloseFrameSent)
	never(Arrived, "nothing was read", Unkept, Answered, AnsweredMore, Write)
	never(Arrived, noHandler, Begin, BodyBegins, BodyEnds, GiveUp)
	never(Arrived, noFrames, Upgrade, CloseBegins, CloseFrameSent)
	never(Arrived, "a TLS connection that is carried here is new", Seal)
	never(Idle, "nothing was read since the last answer", Unkept, Answered, AnsweredMore, Write)
	never(Idle, noHandler, Begin, BodyBegins, BodyEnds, GiveUp)
	never(Idle, noFrames, Upgrade, CloseBegins, CloseFrameSent)
	never(Idle, noTLS, Seal)
	never(Reading, noHandler, BodyBegins, BodyEnds, GiveUp)
	never(Reading, noFrames, Upgrade, CloseBegins, CloseFrameSent)
	never(Serving, "net/http serves one request of a connection at a time", Begin)
	never(Serving, "no body is being read", BodyEnds)
	never(Serving, noFrames, CloseBegins, CloseFrameSent)
	never(Serving, noTLS, Seal)
	never(Body, "the handler still reads", Begin, BodyBegins, Answered, AnsweredMore, Upgrade, GiveUp)
	never(Body, noFrames, CloseBegins, CloseFrameSent)
	never(Body, noTLS, Seal)
	for _, p := range []Phase{Upgraded, Closing, CloseSent} {
		never(p, "net/http has no part in it any more", Begin, BodyBegins, BodyEnds, Answered, AnsweredMore, Upgrade, GiveUp)
		never(p, "nothing is kept", Unkept)
		never(p, noTLS, Seal)
	}
	never(Upgraded, "the last close frame is written in phase closing", CloseFrameSent)
	never(CloseSent, "it was written", CloseFrameSent)
	never(Sealed, "its requests are not seen here", Begin, BodyBegins, BodyEnds, Answered, AnsweredMore, GiveUp)
	never(Sealed, "nothing is kept", Unkept)
	never(Sealed, "its frames are not seen here", Upgrade, CloseBegins, CloseFrameSent)
	never(Sealed, "the handshake was answered", Seal)
	// Whoever held on to the connection when it was carried or closed finds out by what its socket returns.
	for _, o := range []Occurrence{
		Read, Ended, Begin, BodyBegins, BodyEnds, Unkept, Answered, AnsweredMore, Upgrade, CloseBegins, CarryBegins, CarryOff, GiveUp, Close,
	} {
		t.Cells = append(t.Cells,
			ignored(Carried, o, "it belongs to whoever serves next"),
			ignored(Closed, o, "its socket is closed"))
	}
	never(Carried, "the close frame was written before, or never will be", CloseFrameSent)
	never(Closed, "a close frame that was written is of a connection that was open then", CloseFrameSent)
	return t
}
