package server

import (
	"net/http"
	"strconv"
	"time"

	"gateway/server/api"
)

// streamGateway is all that a page shows of the gateway as it changes: its status and its hops, the lanes, and what
// turns become. Hops come at once and none is left out; of the rest only the latest is told, at most four times a
// second.
func (s *Server) streamGateway(w http.ResponseWriter, r *http.Request) error {
	number, err := api.ResumeAfter(r)
	if err != nil {
		return err
	}
	after := s.hopsAfter(uint64(number)) // not negative
	out, retiring := api.NewStream(w), s.retirement.Begun()
	now, news := s.feed.join()
	defer s.feed.leave(news)
	if err := out.Pass(now); err != nil {
		return err
	}
	return s.streamHops(r, out, after, retiring, news)
}

// streamHops sends each hop after a number as it comes, until the open streams must end. With news it also sends the
// events that come there, and the status again after hops; news is nil for neither.
func (s *Server) streamHops(r *http.Request, out *api.Stream, after uint64, retiring <-chan struct{}, news <-chan []byte) error {
	silence := time.NewTimer(api.KeepAlive)
	defer silence.Stop()
	for last := false; ; {
		hops, newer := s.opts.Lifecycle.Hops(after)
		for _, hop := range hops {
			if err := out.Send("hop", strconv.FormatUint(hop.Seq, 10), hop); err != nil {
				return err
			}
			after = hop.Seq
		}
		if len(hops) > 0 && news != nil {
			if err := out.Send("status", "", s.opts.Lifecycle.Status()); err != nil {
				return err
			}
		}
		if last {
			if err := out.Send("shutdown", "", s.retirement.Notice()); err != nil {
				return err
			}
			return out.End()
		}
		if err := out.Flush(); err != nil {
			return err
		}
		silence.Reset(api.KeepAlive)
		select {
		case <-newer:
		case event, ok := <-news:
			if !ok {
				return out.End() // it was too far behind, and begins anew
			}
			if err := out.Pass(event); err != nil {
				return err
			}
		case <-retiring:
			last = true
		case <-silence.C:
			if err := out.Comment("keep-alive"); err != nil {
				return err
			}
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}
