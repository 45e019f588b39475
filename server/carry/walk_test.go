package carry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// socket is below a connection, and notes what is done to it.
type socket struct {
	net.Conn
	incoming []byte // what the client sends; it leaves when there is nothing
	written  []byte
	deadline []time.Time
	closed   int
}

func (s *socket) Read(p []byte) (int, error) {
	if len(s.incoming) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.incoming)
	s.incoming = s.incoming[n:]
	return n, nil
}

func (s *socket) Write(p []byte) (int, error) {
	if s.closed > 0 {
		return 0, net.ErrClosed
	}
	s.written = append(s.written, p...)
	return len(p), nil
}

func (s *socket) SetReadDeadline(t time.Time) error {
	s.deadline = append(s.deadline, t)
	return nil
}

func (s *socket) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func (s *socket) Close() error {
	s.closed++
	return nil
}

// raise makes an occurrence happen by what really makes it happen, as far as one thing does.
var raise = map[Occurrence]func(c *Served, s *socket) error{
	Read: func(c *Served, s *socket) error {
		s.incoming = []byte("more")
		_, err := c.Read(make([]byte, 10))
		return err
	},
	Ended: func(c *Served, _ *socket) error {
		_, err := c.Read(make([]byte, 10))
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("not the end: %w", err)
	},
	Begin:          func(c *Served, _ *socket) error { c.Begin(); return nil },
	BodyBegins:     func(c *Served, _ *socket) error { return c.happens(BodyBegins) },
	BodyEnds:       func(c *Served, _ *socket) error { return c.happens(BodyEnds) },
	Unkept:         func(c *Served, _ *socket) error { c.Drop(); return nil },
	Answered:       func(c *Served, _ *socket) error { return c.happens(Answered) },
	AnsweredMore:   func(c *Served, _ *socket) error { return c.happens(AnsweredMore) },
	Upgrade:        func(c *Served, _ *socket) error { c.Upgraded(); return nil },
	CloseBegins:    func(c *Served, _ *socket) error { c.CloseBegins(); return nil },
	CloseFrameSent: func(c *Served, _ *socket) error { return c.happens(CloseFrameSent) },
	Seal: func(c *Served, _ *socket) error {
		if c.TLS = true; c.phase == Sealed {
			return c.happens(Seal)
		}
		_, err := c.Write([]byte("out"))
		return err
	},
	Write:       func(c *Served, _ *socket) error { _, err := c.Write([]byte("out")); return err },
	Deadline:    func(c *Served, _ *socket) error { return c.SetReadDeadline(time.Now().Add(time.Second)) },
	CarryBegins: func(c *Served, _ *socket) error { return c.happens(CarryBegins) },
	CarryOff:    func(c *Served, _ *socket) error { return c.happens(CarryOff) },
	GiveUp:      func(c *Served, _ *socket) error { c.GiveUp(""); return nil },
	Close:       func(c *Served, _ *socket) error { return c.Close() },
}

// Every cell, with every set of facts, on a real connection.
func TestEveryCell(t *testing.T) {
	walked := make(map[*Cell]bool)
	for p := range Phase(phases) {
		for o := range Occurrence(occurrences) {
			for f := range allFacts + 1 {
				walked[decided[p][o][f]] = true
				synctest.Test(t, func(t *testing.T) { walkCell(t, p, o, f) })
			}
		}
	}
	require.Len(t, walked, len(Lifecycle().Cells), "every row decides for some facts")
}

func walkCell(t *testing.T, p Phase, o Occurrence, f Fact) {
	at := fmt.Sprintf("%s × %s with facts %b", p, o, f)
	impossible := 0
	r := newRoster(Options{IdleTimeout: time.Hour, Impossible: func(Phase, Occurrence) { impossible++ }})
	s := &socket{}
	c := r.accepted(Connection{Conn: s, Unanswered: []byte("before")})
	c.phase, c.facts, c.replay = p, f, nil
	r.carrying = f.Has(Carrying)
	change := r.change
	err := raise[o](c, s)

	cell := decided[p][o][f]
	does := func(a Action) bool { return slices.Contains(cell.Do, a) }
	require.Equal(t, cell.To, c.phase, at)
	require.Equal(t, f&^cell.Clears|cell.Sets, c.facts, at)
	require.Equal(t, cell.Kind == Impossible, impossible == 1, at)

	switch { // the bytes
	case does(Forget):
		require.Nil(t, c.Unanswered, at)
	case does(Keep) && !f.Has(Lost):
		require.Equal(t, "beforemore", string(c.Unanswered), at)
	default:
		require.Equal(t, "before", string(c.Unanswered), at)
	}
	switch { // who has the socket
	case does(Carry) && f.Has(Carrying):
		require.Len(t, r.carried, 1, at)
		require.Zero(t, s.closed, at)
	case does(Carry), does(CloseSocket):
		require.Empty(t, r.carried, at)
		require.Equal(t, 1, s.closed, at)
	default:
		require.Empty(t, r.carried, at)
		require.Zero(t, s.closed, at)
		require.Contains(t, r.open, c, at)
	}
	if does(Carry) || does(CloseSocket) {
		require.NotContains(t, r.open, c, at)
	}
	if does(Wake) || does(Carry) || does(CloseSocket) {
		require.NotEqual(t, change, r.change, at)
	} else {
		require.Equal(t, change, r.change, at)
	}
	if o == Write || o == Seal { // what was to be written
		if does(Refuse) {
			require.ErrorIs(t, err, ErrCarried, at)
			require.Empty(t, s.written, at)
		} else {
			require.NoError(t, err, at)
			require.Equal(t, o != Seal || p != Sealed, string(s.written) == "out", at)
		}
	}
	var deadlines []time.Time // that the socket has got
	switch {
	case does(Interrupt):
		deadlines = append(deadlines, time.Unix(1, 0))
	case does(Release):
		deadlines = append(deadlines, time.Time{})
	case o == Deadline && does(Stretch):
		deadlines = append(deadlines, time.Now().Add(time.Hour))
	case o == Deadline && !does(Refuse):
		deadlines = append(deadlines, time.Now().Add(time.Second))
	}
	require.Equal(t, deadlines, s.deadline, at)
}

func TestConnectionsAreCountedByAddress(t *testing.T) {
	r := newRoster(Options{})
	r.limit(3, 2)
	add := func() *Served { return r.accepted(Connection{Conn: &socket{}}) }
	require.False(t, network(nil).IsValid())
	require.False(t, network(&net.UnixAddr{}).IsValid())
	one, _, _ := add(), add(), r.accepted(Connection{Conn: &socket{}, Local: true})
	_, full := r.full(one.from)
	require.False(t, full, "what has no address has no limit of its own")
	add()
	limit, full := r.full(one.from)
	require.True(t, full)
	require.Equal(t, "limits.connections", limit)
	for c := range r.open {
		require.NoError(t, c.Close())
	}
	require.Zero(t, r.remote)
	require.Empty(t, r.from)
}
