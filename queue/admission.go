package queue

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"github.com/rs/xid"
)

// reserve promises a place in the session, or says which limit forbids it.
func (s *scheduler) reserve(name string) error {
	if s.over != nil {
		return s.over
	}
	if n := s.stats.Queued + s.reserved; n >= s.cfg.MaxQueued {
		return fmt.Errorf("%w: %d turns wait, the limit is %d", ErrFull, n, s.cfg.MaxQueued)
	}
	if sess, ok := s.sessions[name]; ok {
		if n := len(sess.line) + sess.reserved; n >= s.cfg.MaxQueuedPerSession {
			return fmt.Errorf("%w: %d turns wait in session %q, the limit is %d",
				ErrFull, n, name, s.cfg.MaxQueuedPerSession)
		}
	}
	s.session(name).reserved++
	s.reserved++
	return nil
}

func (s *scheduler) unreserve(name string) *session {
	sess := s.sessions[name]
	sess.reserved--
	s.reserved--
	return sess
}

// refuse answers an operation that was not handed to the committer.
func (s *scheduler) refuse(op operation, err error) {
	op.status().err = err
	s.told = append(s.told, op)
}

// write has an operation written down that needs nothing of the scheduler.
func (s *scheduler) write(op operation) {
	if s.over != nil {
		s.refuse(op, s.over)
		return
	}
	s.out = append(s.out, op)
}

// newID is the xid with the number of the generation where it has that of the process: the next image of a process has
// the same number, and counts on from anywhere, so that within a second it could make ids that are there already.
func newID(id xid.ID, epoch int64) string {
	binary.BigEndian.PutUint16(id[7:9], uint16(epoch))
	return id.String()
}

// admit reserves a place for the turn and has it written down. Turns are numbered in the order in which
// they are admitted, which is the order in which they are committed.
func (s *scheduler) admit(op *acceptTurn) {
	if err := s.reserve(op.turn.Session); err != nil {
		s.refuse(op, err)
		return
	}
	op.turn.ID = newID(xid.New(), s.stats.Epoch)
	op.turn.CreatedAt = now()
	op.turn.Mode = cmp.Or(op.turn.Mode, s.settings[op.turn.Session].mode, op.mode, Followup)
	if op.turn.IdempotencyKey == "" {
		op.turn.IdempotencyKey = op.turn.ID
	}
	s.out = append(s.out, op)
}

// readmit is admit for a turn that comes back.
func (s *scheduler) readmit(op *retryTurn) {
	if err := s.reserve(op.session); err != nil {
		s.refuse(op, err)
		return
	}
	s.out = append(s.out, op)
}
