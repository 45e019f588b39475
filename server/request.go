package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gateway/queue"
)

const (
	maxKey       = 255 // bytes of an idempotency key
	maxName      = 256 // bytes of a session's name
	maxReason    = 200 // bytes of a reason
	maxID        = 64  // bytes of a turn's id
	maxSmallBody = 64 << 10
	// bodyPerInput is how much larger than the input a body may be: JSON escapes, and the earlier messages
	// that clients send along.
	bodyPerInput     = 8
	defaultBodyLimit = bodyPerInput << 20
)

// bodyLimit is the largest body of a request, in bytes; nil has a limit too.
func (b *Backend) bodyLimit() int64 {
	if b == nil {
		return defaultBodyLimit
	}
	return maxSmallBody + bodyPerInput*b.MaxInput
}

// modeHeader says what the turn does when others of its session wait or run; see [queue.Mode].
const modeHeader = "X-Queue-Mode"

// turnContext is what [queue.Turn.Context] holds: what the client sent besides the input.
type turnContext struct {
	// Messages is the whole conversation as the client sent it, the input included; empty when the input
	// was all there was.
	Messages []message `json:"messages,omitempty"`
	// Append: the messages are what is new in the session's conversation, not all of it.
	Append       bool   `json:"append,omitempty"`
	Instructions string `json:"instructions,omitempty"`
	// Params are sampling parameters and tools under their names in chat completions.
	Params map[string]json.RawMessage `json:"params,omitempty"`
	// The rest is echoed in the response's document and means nothing to agents.
	Metadata           map[string]string `json:"metadata,omitempty"`
	Background         bool              `json:"background,omitempty"`
	PreviousResponseID string            `json:"previous_response_id,omitempty"`
}

// encode returns nil when there is nothing to keep.
func (c turnContext) encode() (json.RawMessage, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("server: encoding the context: %w", err)
	}
	if string(raw) == "{}" {
		return nil, nil
	}
	return raw, nil
}

// submission is a request for a turn that was understood. What the headers say comes on top.
type submission struct {
	model, input string
	// session is what the body names; empty for a fresh one, whose name begins with fresh.
	session, fresh string
	context        turnContext
	// tools: only an agent that is a model can answer it.
	tools bool
}

// converse keeps the conversation that the client sent, unless its last message, which is the input, is all
// there is to it.
func (s *submission) converse(messages []message, tools bool) {
	for _, m := range messages {
		tools = tools || len(m.ToolCalls) > 0 || m.ToolCallID != ""
	}
	s.tools = tools
	if len(messages) > 1 || tools && len(messages) == 1 {
		s.context.Messages = messages
	}
}

// accept checks the submission against the generation's configuration, hands it to the queue and names
// the turn in X-Turn-Id.
func accept(w http.ResponseWriter, r *http.Request, b *Backend, sub submission) (queue.Turn, error) {
	key := r.Header.Get(idempotencyHeader)
	if !printable(key, maxKey) {
		return queue.Turn{}, invalid(idempotencyHeader, "invalid_header", "%s must be at most %d printable characters. Try: a fresh UUID", idempotencyHeader, maxKey)
	}
	agent, err := agentFor(b, sub.model)
	if err != nil {
		return queue.Turn{}, err
	}
	if sub.tools && !b.Tools[agent] {
		return queue.Turn{}, unsupported("tools", fmt.Sprintf("the agent %q is no model that could call a tool. Try: an agent of type openai, or without tools", agent))
	}
	lane := b.DefaultLane
	if name := r.Header.Get("X-Lane"); name != "" {
		lane = name
	}
	if !slices.Contains(b.Lanes, lane) {
		return queue.Turn{}, invalid("X-Lane", "lane_not_found", "there is no lane %q. Try: one of %s", clip(lane), strings.Join(b.Lanes, ", "))
	}
	session := sub.session
	if name := r.Header.Get("X-Session-Id"); name != "" {
		if !printable(name, maxName) {
			return queue.Turn{}, invalid("X-Session-Id", "invalid_header", "X-Session-Id must be at most %d printable characters. Try: a shorter one, without line breaks", maxName)
		}
		session = name
	}
	if session == "" {
		session = sub.fresh + key
	}
	if int64(len(sub.input)) > b.MaxInput {
		return queue.Turn{}, tooLarge("the input", b.MaxInput, "turns.max_input")
	}
	context, err := sub.context.encode()
	if err != nil {
		return queue.Turn{}, err
	}
	mode := queue.Mode(r.Header.Get(modeHeader))
	if !mode.Valid() {
		return queue.Turn{}, invalid(modeHeader, "invalid_header", "there is no mode %q. Try: followup, collect or interrupt", clip(string(mode)))
	}
	t, _, err := b.Queue.Accept(r.Context(), queue.NewTurn{
		Session: session, Lane: lane, Agent: agent, Input: sub.input, Context: context, IdempotencyKey: key,
		Mode: mode, DefaultMode: b.Modes[agent],
	})
	if err != nil {
		return queue.Turn{}, err
	}
	w.Header().Set(turnHeader, t.ID)
	return t, nil
}

func agentFor(b *Backend, model string) (string, error) {
	switch {
	case model == "":
		return b.DefaultAgent, nil
	case slices.Contains(b.Agents, model):
		return model, nil
	default:
		return "", notFound("model_not_found", "model", "there is no agent %q. Try: one of %s", clip(model), strings.Join(b.Agents, ", "))
	}
}

// printable reports whether s is valid text of at most limit bytes without control characters.
func printable(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// turnID takes the turn's id from the path.
func turnID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if id == "" || !printable(id, maxID) {
		return "", noSuchTurn(id)
	}
	return id, nil
}

// readObject reads a body that must be one JSON object of at most limit bytes.
func readObject(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if given := r.Header.Get("Content-Type"); given != "" {
		if kind, _, err := mime.ParseMediaType(given); err != nil || kind != "application/json" {
			return nil, &apiError{
				status: http.StatusUnsupportedMediaType, kind: typeInvalid, code: "unsupported_media_type",
				message: fmt.Sprintf("a body of type %q is not read. Try: Content-Type: application/json", clip(given)),
			}
		}
	}
	return readBody(w, r, limit)
}

// readSmall reads the members of a small object; without a body there are none.
func readSmall(w http.ResponseWriter, r *http.Request, members ...member) error {
	body, err := readObject(w, r, maxSmallBody)
	if err != nil || len(body) == 0 {
		return err
	}
	f, err := parseFields(body)
	if err != nil {
		return err
	}
	return cmp.Or(f.takeEach(members...), f.rest(""))
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, unread(err)
	}
	if at := notText(body); at >= 0 {
		return nil, invalid("", "invalid_encoding", "the body is not UTF-8 at byte %d, and would not reach the agent as it is. Try: encode it as UTF-8", at)
	}
	return body, nil
}

// unread says why a body could not be read whole: who reads it may have said so already.
func unread(err error) error {
	_, large := errors.AsType[*http.MaxBytesError](err)
	if _, known := errors.AsType[*apiError](err); known || large {
		return err
	}
	return &apiError{status: http.StatusBadRequest, kind: typeInvalid, code: "incomplete_body", message: "the body could not be read whole. Try: the same request again", cause: err}
}

// notText is where the first byte is that is no UTF-8; -1 when there is none. JSON's decoder would replace it.
func notText(body []byte) int {
	if utf8.Valid(body) {
		return -1
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(body[at:])
		if r == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
}

// sample is what may stand where a value of type t is taken.
func sample(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a number"
	}
}

// fields is a JSON object whose members are taken one by one; what is left was not understood.
type fields map[string]json.RawMessage

// parseFields reads one object and nothing behind it.
func parseFields(body []byte) (fields, error) {
	if len(body) == 0 {
		return nil, invalid("", "invalid_json", "the body is empty. Try: a JSON object")
	}
	var f fields
	if err := json.Unmarshal(body, &f); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, invalid("", "invalid_json", "the body is not valid JSON at byte %d: %s. Try: jq . on it, which shows the place", syntax.Offset, syntax)
		}
		return nil, invalid("", "invalid_json", "the body is not a JSON object. Try: {\"input\": \"hello\"}")
	}
	if f == nil {
		return nil, invalid("", "invalid_json", "the body is not a JSON object. Try: {\"input\": \"hello\"}")
	}
	return f, nil
}

// take decodes a member and removes it. A missing one and null leave into as it is.
func (f fields) take(name string, into any) error {
	raw, ok := f[name]
	delete(f, name)
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return invalid(name, "invalid_type", "%s cannot be a %s. Try: %s", name, wrong.Value, sample(wrong.Type))
		}
		return invalid(name, "invalid_type", "%s is not valid: %s. Try: without it", name, err)
	}
	return nil
}

// member is where a member's value goes.
type member struct {
	name string
	into any
}

func (f fields) takeEach(members ...member) error {
	for _, m := range members {
		if err := f.take(m.name, m.into); err != nil {
			return err
		}
	}
	return nil
}

// drop removes members that change nothing here.
func (f fields) drop(names ...string) {
	for _, name := range names {
		delete(f, name)
	}
}

// rest refuses the first member that was not taken, unless it asks for nothing. where is put before its
// name.
func (f fields) rest(where string) error {
	names := make([]string, 0, len(f))
	for name, raw := range f {
		if !asksNothing(raw) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	name := where + clip(slices.Min(names))
	return unsupported(name, "the gateway would have to ignore it. Try: without it")
}

// asksNothing reports whether a parameter is at the value that means that it is not there.
func asksNothing(raw json.RawMessage) bool {
	switch string(raw) {
	case "null", "false", `""`, "[]", "{}":
		return true
	}
	return false
}

// takeSampling takes the parameters that agents which are models understand. rename maps a name to the
// one that it has in chat completions; others keep theirs.
func takeSampling(f fields, names []string, rename map[string]string) (map[string]json.RawMessage, error) {
	var params map[string]json.RawMessage
	for _, name := range names {
		raw, ok := f[name]
		delete(f, name)
		if !ok || string(raw) == "null" {
			continue
		}
		if want := complaint(name, raw); want != "" {
			return nil, invalid(name, "invalid_value", "%s must be %s. Try: without it", name, want)
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
		if json.Unmarshal(raw, &word) != nil || word == "" || !printable(word, 32) {
			return "a word"
		}
	}
	return ""
}

// count takes a whole number from the query; without one it is missing.
func count(query url.Values, name string, low, high, missing int64) (int64, error) {
	given := query.Get(name)
	if given == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(given, 10, 64)
	if err != nil || n < low || n > high {
		if high == math.MaxInt64 {
			return 0, invalid(name, "invalid_value", "%s must be a whole number from %d. Try: %[2]d, or without it", name, low)
		}
		return 0, invalid(name, "invalid_value", "%s must be a whole number from %d to %d. Try: one in between, or without it", name, low, high)
	}
	return n, nil
}

// acceptsEvents reports whether the client asks for server-sent events.
func acceptsEvents(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// resumeAfter is the number of the last event that the client has seen: the header that browsers send by
// themselves when they reconnect, else the query; 0 for none.
func resumeAfter(r *http.Request) (int64, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		return count(url.Values{"Last-Event-ID": {last}}, "Last-Event-ID", 0, math.MaxInt64, 0)
	}
	return count(r.URL.Query(), "after", 0, math.MaxInt64, 0)
}
