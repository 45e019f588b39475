package queue

import "errors"

// take is what the committer tells: the results of a batch in commit order.
func (s *scheduler) take(batch []operation) {
	for _, op := range batch {
		if errors.Is(op.status().err, errFenced) && s.over == nil {
			s.log.Error().Int64("epoch", s.stats.Epoch).
				Msg("a newer gateway has opened this store; this gateway starts no more turns")
			s.stop(errFenced, s.cfg.CancelGrace)
			s.hub.end(errFenced)
		}
		switch op := op.(type) {
		case *acceptTurn:
			s.accepted(op)
		case *startTurn:
			s.started(op)
		case *appendText:
			op.attempt.appended(op)
		case *endTurn:
			s.ended(op)
		case *cancelTurn:
			s.cancelled(op)
		case *retryTurn:
			s.retried(op)
		case *changeSetting:
			s.changed(op)
		case *deleteTurn, *pruneTurns: // only final turns, of which the scheduler keeps nothing
		}
	}
	s.told = append(s.told, batch...)
}

func (s *scheduler) accepted(op *acceptTurn) {
	sess := s.unreserve(op.turn.Session)
	if op.err != nil || op.first != nil {
		s.tidy(sess)
		return
	}
	p := s.open(op.turn.waiting(op.seq))
	if op.turn.Mode != Collect { // more may join it until it starts
		s.carry(p, &op.turn)
	}
	s.wait(p)
	if op.turn.Mode == Interrupt {
		s.supersede(p)
	}
}

func (t *Turn) waiting(seq int64) waitingTurn {
	return waitingTurn{seq: seq, id: t.ID, session: t.Session, lane: t.Lane, createdAt: t.CreatedAt.UnixMicro()}
}

func (s *scheduler) started(op *startTurn) {
	p := op.place
	if op.err != nil {
		s.lost(p, op.err, "start")
		return
	}
	p.phase = running
	s.launch(p, op.turn)
	switch {
	case p.unwanted != nil:
		p.attempt.skip(p.unwanted)
	case s.over != nil:
		p.attempt.skip(ErrInterrupted)
	default:
		go p.attempt.run()
	}
}

func (s *scheduler) ended(op *endTurn) {
	p := op.place
	if op.abandoned {
		p.lane.stuck++
		s.stats.Stuck++
	}
	if op.err != nil {
		var rejected *rejectedError
		if errors.As(op.err, &rejected) && op.turn.Status != Failed {
			// The result itself is what cannot be written. Its session must not wait for it for ever.
			s.log.Error().Err(op.err).Str("turn", p.id).Msg("the result cannot be written; the turn fails")
			s.out = append(s.out, op.asFailed(op.err))
			return
		}
		s.lost(p, op.err, "end")
		return
	}
	s.release(p)
	if op.turn.Status == Queued {
		if op.pause > 0 {
			s.hold(p, op.pause)
		}
		s.wait(p)
		return
	}
	p.lane.ends.count(op.turn.Status)
	if s.cfg.Ended != nil {
		s.cfg.Ended(op.turn)
	}
	s.forget(p)
}

// lost lets go of a turn whose start or end the store refused for good: it belongs to a newer generation
// now, or the next one will find it left running.
func (s *scheduler) lost(p *place, err error, what string) {
	if errors.Is(err, errRefused) || errors.Is(err, errFenced) {
		s.stats.Refused++
	}
	s.log.Error().Err(err).Str("turn", p.id).Str("operation", what).Msg("not written")
	s.release(p)
	s.forget(p)
}

func (s *scheduler) cancelled(op *cancelTurn) {
	p := op.place
	p.cancel = nil
	if op.err != nil {
		p.phase = waiting
		p.session.seat()
		return
	}
	p.leave()
	s.stats.Queued--
	p.lane.ends.count(Cancelled)
	s.forget(p)
}

func (s *scheduler) retried(op *retryTurn) {
	sess := s.unreserve(op.session)
	if op.err != nil {
		s.tidy(sess)
		return
	}
	s.wait(s.open(op.turn.waiting(op.seq)))
}
