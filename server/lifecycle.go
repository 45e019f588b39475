package server

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"gateway/fsm"
	"gateway/server/api"
)

// maxDrain bounds what a restart may ask to wait.
const maxDrain = 24 * time.Hour

// healthy is alive in every state; a process that is not does not answer.
func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) error {
	return api.Reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) showMetrics(w http.ResponseWriter, r *http.Request) error {
	if s.opts.Metrics == nil {
		return api.NotFound("unknown_path", "", "there are no metrics here. Try: GET /v1/lifecycle")
	}
	s.opts.Metrics.ServeHTTP(w, r)
	return nil
}

// ready answers 200 as long as queued turns are started: the gateway serves in full.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	now, status := s.opts.Lifecycle.Snapshot(), http.StatusOK
	if !now.Ready {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	return api.Reply(w, status, map[string]fsm.State{"state": now.State})
}

// showLifecycle returns the snapshot and the history, or the snapshot and then every hop as it comes.
func (s *Server) showLifecycle(w http.ResponseWriter, r *http.Request) error {
	after, err := api.ResumeAfter(r)
	if err != nil {
		return err
	}
	if api.AcceptsEvents(r) {
		return s.streamLifecycle(w, r, s.hopsAfter(uint64(after)))
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(s.opts.Lifecycle.Status(), &document); err != nil {
		return fmt.Errorf("server: the lifecycle's snapshot: %w", err)
	}
	if document == nil {
		document = make(map[string]json.RawMessage)
	}
	hops, _ := s.opts.Lifecycle.Hops(uint64(after))
	if hops == nil {
		hops = []fsm.Hop{}
	}
	if document["history"], err = json.Marshal(hops); err != nil {
		return fmt.Errorf("server: the lifecycle's history: %w", err)
	}
	return api.Reply(w, http.StatusOK, document)
}

// hopsAfter is where a stream of hops goes on. After a stop they are counted anew, and a number that is not reached yet
// is of the time before.
func (s *Server) hopsAfter(after uint64) uint64 {
	if hops, _ := s.opts.Lifecycle.Hops(0); len(hops) == 0 || after > hops[len(hops)-1].Seq {
		return 0
	}
	return after
}

// streamLifecycle sends the snapshot, then each hop of a restart or stop as it comes.
func (s *Server) streamLifecycle(w http.ResponseWriter, r *http.Request, after uint64) error {
	out, retiring := api.NewStream(w), s.retirement.Begun()
	if err := out.Send("status", "", s.opts.Lifecycle.Status()); err != nil {
		return err
	}
	return s.streamHops(r, out, after, retiring, nil)
}

// requestEvent asks the machine for an event and answers with what it decided.
func (s *Server) requestEvent(event fsm.Event) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var reason, turn, wait string
		var drain *time.Duration
		var authorize bool
		if err := api.ReadSmall(w, r, api.Into("reason", &reason), api.Into("turn", &turn),
			api.Into("authorize_signal", &authorize), api.Into("drain_timeout", &wait)); err != nil {
			return err
		}
		switch {
		case !api.Printable(reason, api.MaxReason):
			return api.Invalid("reason", "invalid_value", "reason must be at most %d printable characters. Try: a shorter one, without line breaks", api.MaxReason)
		case !api.Printable(turn, api.MaxID):
			return api.Invalid("turn", "invalid_value", "turn is not the id of a turn. Try: the value of GATEWAY_TURN_ID, or without turn")
		case authorize && event != fsm.Restart:
			return api.Invalid("authorize_signal", "invalid_value", "only a restart can be authorised. Try: POST /v1/lifecycle/restart")
		}
		if wait != "" {
			d, err := time.ParseDuration(wait)
			switch {
			case event != fsm.Restart:
				return api.Invalid("drain_timeout", "invalid_value", "only a restart drains. Try: POST /v1/lifecycle/restart")
			case err != nil || d < 0 || d > maxDrain:
				return api.Invalid("drain_timeout", "invalid_value", "drain_timeout must be a duration from 0s to %s. Try: \"10s\"", maxDrain)
			}
			drain = &d
		}
		if authorize {
			s.opts.Lifecycle.AuthorizeSignal(actor(r))
			return api.Reply(w, http.StatusOK, map[string]bool{"authorized": true})
		}
		decision, err := s.opts.Lifecycle.Request(r.Context(), fsm.Request{Event: event, Actor: actor(r), Reason: reason, Turn: turn, Drain: drain})
		if err != nil {
			return fmt.Errorf("server: requesting %s: %w", event, err)
		}
		return api.Reply(w, http.StatusAccepted, decision)
	}
}

// checkSuccessor says whether a restart would work.
func (s *Server) checkSuccessor(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	found, err := b.Check(r.Context())
	if err != nil {
		return fmt.Errorf("server: checking the successor: %w", err)
	}
	if found.Warnings == nil {
		found.Warnings = []string{}
	}
	return api.Reply(w, http.StatusOK, found)
}

// actor says in the history who asked.
func actor(r *http.Request) string {
	if trusted(r.Context()) {
		return "local"
	}
	if j := judgementOf(r.Context()); j != nil {
		return "api " + j.who.Prefix() + hostOf(r)
	}
	return "api " + hostOf(r)
}

// hostOf is where the request comes from.
func hostOf(r *http.Request) string {
	if trusted(r.Context()) {
		return "local"
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// stateFormats maps each form of the transition table to its media type.
var stateFormats = map[string]string{
	"json":     "application/json",
	"mermaid":  "text/vnd.mermaid; charset=utf-8",
	"dot":      "text/vnd.graphviz; charset=utf-8",
	"markdown": "text/markdown; charset=utf-8",
}

func (s *Server) showStates(w http.ResponseWriter, r *http.Request) error {
	format := r.URL.Query().Get("format")
	if format == "" {
		format = "json"
	}
	contentType, ok := stateFormats[format]
	if !ok {
		return api.Invalid("format", "invalid_value", "there is no format %q. Try: json, mermaid, dot, markdown", api.Clip(format))
	}
	text, err := fsm.Lifecycle().Render(format)
	if err != nil {
		return fmt.Errorf("server: the table of states: %w", err)
	}
	return api.ReplyText(w, http.StatusOK, contentType, []byte(text))
}
