package server

import (
	"net/http"
	"strconv"
	"time"
)

// streamGateway is all that a page shows of the gateway as it changes: its status and its hops, the lanes, and what
// turns become. Hops come at once and none is left out; of the rest only the latest is told, at most four times a
// second.
func (s *Server) streamGateway(w http.ResponseWriter, r *http.Request) error {
	number, err := resumeAfter(r)
	if err != nil {
		return err
	}
	after := s.hopsAfter(uint64(number)) //nolint:gosec // not negative
	out := newStream(w)
	retiring := s.retirement.begun()
	now, news := s.feed.join()
	defer s.feed.leave(news)
	if err := out.pass(now); err != nil {
		return err
	}
	silence := time.NewTimer(keepAlive)
	defer silence.Stop()
	for last := false; ; {
		hops, newer := s.opts.Lifecycle.Hops(after)
		for _, hop := range hops {
			if err := out.send("hop", strconv.FormatUint(hop.Seq, 10), hop.Document); err != nil {
				return err
			}
			after = hop.Seq
		}
		if len(hops) > 0 {
			if err := out.send("status", "", s.opts.Lifecycle.Status().Document); err != nil {
				return err
			}
		}
		if last {
			if err := out.send("shutdown", "", s.retirement.notice()); err != nil {
				return err
			}
			return out.end()
		}
		if err := out.flush(); err != nil {
			return err
		}
		silence.Reset(keepAlive)
		select {
		case <-newer:
		case event, ok := <-news:
			if !ok {
				return out.end() // it was too far behind, and begins anew
			}
			if err := out.pass(event); err != nil {
				return err
			}
		case <-retiring:
			last = true
		case <-silence.C:
			if err := out.comment("keep-alive"); err != nil {
				return err
			}
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}
