package openai

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"gateway/internal/conversation"
	"gateway/queue"
	"gateway/server/api"
)

// modeHeader says what the turn does when others of its session wait or run; see [queue.Mode].
const modeHeader = "X-Queue-Mode"

// submission is a request for a turn that was understood. What the headers say comes on top.
type submission struct {
	model, input string
	// session is what the body names; empty for a fresh one, whose name begins with fresh.
	session, fresh string
	sent           conversation.Sent
	// tools: only an agent that is a model can answer it.
	tools bool
}

// converse keeps the conversation that the client sent, unless its last message, which is the input, is all
// there is to it.
func (s *submission) converse(messages []conversation.Message, tools bool) {
	for _, m := range messages {
		tools = tools || len(m.ToolCalls) > 0 || m.ToolCallID != ""
	}
	s.tools = tools
	if len(messages) > 1 || tools && len(messages) == 1 {
		s.sent.Messages = messages
	}
}

// accept checks the submission against the generation's configuration, hands it to the queue and names
// the turn in X-Turn-Id.
func accept(w http.ResponseWriter, r *http.Request, b *api.Backend, sub submission) (queue.Turn, error) {
	key := r.Header.Get(api.IdempotencyHeader)
	if !api.Printable(key, api.MaxKey) {
		return queue.Turn{}, api.Invalid(api.IdempotencyHeader, "invalid_header", "%s must be at most %d printable characters. Try: a fresh UUID", api.IdempotencyHeader, api.MaxKey)
	}
	agent, err := agentFor(b, sub.model)
	if err != nil {
		return queue.Turn{}, err
	}
	if sub.tools && !b.Tools[agent] {
		return queue.Turn{}, api.Unsupported("tools", fmt.Sprintf("agent %q does not support tools. Try: an agent of type openai, or without tools", agent))
	}
	lane := b.DefaultLane
	if name := r.Header.Get("X-Lane"); name != "" {
		lane = name
	}
	if !slices.Contains(b.Lanes, lane) {
		return queue.Turn{}, api.Invalid("X-Lane", "lane_not_found", "there is no lane %q. Try: one of %s", api.Clip(lane), strings.Join(b.Lanes, ", "))
	}
	session := sub.session
	if name := r.Header.Get("X-Session-Id"); name != "" {
		if !api.Printable(name, api.MaxName) {
			return queue.Turn{}, api.Invalid("X-Session-Id", "invalid_header", "X-Session-Id must be at most %d printable characters. Try: a shorter one, without line breaks", api.MaxName)
		}
		session = name
	}
	if session == "" {
		session = sub.fresh + key
	}
	if int64(len(sub.input)) > b.MaxInput {
		return queue.Turn{}, api.TooLarge("the input", b.MaxInput, "turns.max_input")
	}
	context, err := sub.sent.Encode()
	if err != nil {
		return queue.Turn{}, err
	}
	mode := queue.Mode(r.Header.Get(modeHeader))
	if !mode.Valid() {
		return queue.Turn{}, api.Invalid(modeHeader, "invalid_header", "there is no mode %q. Try: followup, collect or interrupt", api.Clip(string(mode)))
	}
	t, _, err := b.Queue.Accept(r.Context(), queue.NewTurn{
		Session: session, Lane: lane, Agent: agent, Input: sub.input, Context: context, IdempotencyKey: key,
		Mode: mode, DefaultMode: b.Modes[agent],
	})
	if err != nil {
		return queue.Turn{}, err
	}
	w.Header().Set(api.TurnHeader, t.ID)
	return t, nil
}

func agentFor(b *api.Backend, model string) (string, error) {
	switch {
	case model == "":
		return b.DefaultAgent, nil
	case slices.Contains(b.Agents, model):
		return model, nil
	default:
		return "", api.NotFound("model_not_found", "model", "there is no agent %q. Try: one of %s", api.Clip(model), strings.Join(b.Agents, ", "))
	}
}

// takeSampling takes the parameters that agents which are models understand. rename maps a name to the
// one that it has in chat completions; others keep theirs.
func takeSampling(f api.Fields, names []string, rename map[string]string) (map[string]json.RawMessage, error) {
	var params map[string]json.RawMessage
	for _, name := range names {
		raw, ok := f[name]
		delete(f, name)
		if !ok || string(raw) == "null" {
			continue
		}
		if want := complaint(name, raw); want != "" {
			return nil, api.Invalid(name, "invalid_value", "%s must be %s. Try: without it", name, want)
		}
		if params == nil {
			params = make(map[string]json.RawMessage)
		}
		if chat, ok := rename[name]; ok {
			name = chat
		}
		params[name] = raw
	}
	return params, nil
}

// complaint says what the parameter should have been, or nothing.
func complaint(name string, raw json.RawMessage) string {
	between := func(low, high float64) string {
		var n float64
		if json.Unmarshal(raw, &n) != nil || n < low || n > high {
			return fmt.Sprintf("a number from %g to %g", low, high)
		}
		return ""
	}
	switch name {
	case "temperature":
		return between(0, 2)
	case "top_p":
		return between(0, 1)
	case "presence_penalty", "frequency_penalty":
		return between(-2, 2)
	case "max_tokens", "max_completion_tokens", "max_output_tokens":
		var n int64
		if json.Unmarshal(raw, &n) != nil || n < 1 || n > math.MaxInt32 {
			return "a positive whole number"
		}
	case "seed":
		var n int64
		if json.Unmarshal(raw, &n) != nil {
			return "a whole number"
		}
	case "stop":
		var one string
		var several []string
		if json.Unmarshal(raw, &one) != nil && (json.Unmarshal(raw, &several) != nil || len(several) > 4) {
			return "a string or at most 4 strings"
		}
	case "reasoning_effort":
		var word string
		if json.Unmarshal(raw, &word) != nil || word == "" || !api.Printable(word, 32) {
			return "a word"
		}
	}
	return ""
}
