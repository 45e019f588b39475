package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"gateway/internal/conversation"
	"gateway/queue"
	"gateway/server/api"
)

// chatRequest is a chat completion that was understood.
type chatRequest struct {
	submission
	stream, includeUsage bool
}

var chatSampling = []string{
	"temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
	"presence_penalty", "frequency_penalty", "reasoning_effort",
}

// parseChat reads the body of a chat completion. What it would have to ignore it refuses by name, except
// what changes nothing in the answer.
func parseChat(body []byte) (chatRequest, error) {
	q := chatRequest{submission: submission{fresh: "chat-"}}
	f, err := api.ParseFields(body)
	if err != nil {
		return q, err
	}
	messages, ok := f["messages"]
	if !ok || string(messages) == "null" {
		return q, api.Invalid("messages", "missing_parameter", "messages is missing. Try: [{\"role\":\"user\",\"content\":\"hello\"}]")
	}
	f.Drop("messages", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier")
	all, input, err := parseMessages(messages, "messages", "text")
	if err != nil {
		return q, err
	}
	q.input = input
	if q.sent.Params, err = takeSampling(f, chatSampling, nil); err != nil {
		return q, err
	}
	tools, err := takeTools(f, &q.sent.Params, false)
	if err != nil {
		return q, err
	}
	q.converse(all, tools)
	n := int64(1)
	var options *struct {
		IncludeUsage bool `json:"include_usage"`
	}
	err = f.TakeMembers(api.Into("model", &q.model), api.Into("user", &q.session), api.Into("stream", &q.stream),
		api.Into("n", &n), api.Into("stream_options", &options))
	if err != nil {
		return q, err
	}
	switch {
	case n != 1:
		return q, api.Unsupported("n", "a turn has one answer. Try: n = 1")
	case options != nil && !q.stream:
		return q, api.Invalid("stream_options", "invalid_value", "stream_options is only possible together with stream = true. Try: with it, or without stream_options")
	case !api.Printable(q.session, api.MaxName):
		return q, api.Invalid("user", "invalid_value", "user names the session; it must be at most %d printable characters. Try: a shorter one, without line breaks", api.MaxName)
	}
	q.includeUsage = options != nil && options.IncludeUsage
	return q, f.RefuseRest("")
}

// The documents of chat completions. Usage is what the agent said; where it said nothing it is zero, for
// clients that read it without asking.
type (
	chatCompletion struct {
		ID      string       `json:"id"`
		Object  string       `json:"object"`
		Created int64        `json:"created"`
		Model   string       `json:"model"`
		Choices []chatChoice `json:"choices"`
		Usage   *chatUsage   `json:"usage,omitempty"`
	}
	chatChoice struct {
		Index        int          `json:"index"`
		Message      *chatMessage `json:"message,omitempty"`
		Delta        *chatDelta   `json:"delta,omitempty"`
		Logprobs     *struct{}    `json:"logprobs"`
		FinishReason *string      `json:"finish_reason"`
	}
	chatMessage struct {
		Role      string                  `json:"role"`
		Content   *string                 `json:"content"` // null when the answer is calls of tools and nothing else
		Refusal   *string                 `json:"refusal"`
		ToolCalls []conversation.ToolCall `json:"tool_calls,omitempty"`
	}
	chatDelta struct {
		Role      string        `json:"role,omitempty"`
		Content   *string       `json:"content,omitempty"`
		ToolCalls []indexedCall `json:"tool_calls,omitempty"`
	}
	indexedCall struct {
		Index int `json:"index"`
		conversation.ToolCall
	}
	chatUsage struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
		TotalTokens      int `json:"total_tokens"`
		PromptDetails    *struct {
			CachedTokens int `json:"cached_tokens"`
		} `json:"prompt_tokens_details,omitempty"`
		CompletionDetails *struct {
			ReasoningTokens int `json:"reasoning_tokens"`
		} `json:"completion_tokens_details,omitempty"`
	}
)

// answerOf is a turn's detail; what another writer of the store left there is not shown.
func answerOf(detail json.RawMessage) conversation.Answer {
	a, _ := conversation.AnswerIn(detail)
	return a
}

// usageOf is the usage in the answer; nil when the agent said nothing.
func usageOf(a conversation.Answer) (u *chatUsage) {
	if len(a.Usage) > 0 {
		_ = json.Unmarshal(a.Usage, &u) // what another writer of the store left there is not shown
	}
	return u
}

// orZero is the usage, all zero when the agent said nothing.
func (u *chatUsage) orZero() *chatUsage {
	if u == nil {
		return &chatUsage{}
	}
	return u
}

func chatDocument(t queue.Turn, object string, choices ...chatChoice) chatCompletion {
	if choices == nil {
		choices = []chatChoice{}
	}
	return chatCompletion{ID: "chatcmpl-" + t.ID, Object: object, Created: t.CreatedAt.Unix(), Model: t.Agent, Choices: choices}
}

func (o *Endpoints) CreateChat(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	body, err := api.ReadObject(w, r, b.BodyLimit())
	if err != nil {
		return err
	}
	q, err := parseChat(body)
	if err != nil {
		return err
	}
	t, err := accept(w, r, b, q.submission)
	if err != nil {
		return err
	}
	if q.stream {
		return o.streamChat(w, r, b, t, q.includeUsage)
	}
	if t, err = b.Queue.Wait(r.Context(), t.ID); err != nil {
		return err
	}
	if t.Status != queue.Completed {
		return unanswered(t.ID, t.Status == queue.Cancelled, t.Error)
	}
	detail := answerOf(t.Detail)
	finish := finishOf(detail)
	said := &chatMessage{Role: "assistant", ToolCalls: detail.ToolCalls}
	if t.Output != "" || len(detail.ToolCalls) == 0 {
		said.Content = &t.Output
	}
	document := chatDocument(t, "chat.completion", chatChoice{Message: said, FinishReason: &finish})
	document.Usage = usageOf(detail).orZero()
	return api.Reply(w, http.StatusOK, document)
}

// unanswered is the error of a turn that ended without an answer. The turn has had its attempts, so
// clients should not repeat the request by themselves.
func unanswered(id string, cancelled bool, reason string) *api.Error {
	if cancelled {
		return &api.Error{
			Status: http.StatusConflict, Type: api.TypeInvalid, Code: "turn_cancelled", Settled: true,
			Message: fmt.Sprintf("the turn was cancelled: %s. Try: POST /v1/turns/%s/retry", reason, id),
		}
	}
	return &api.Error{
		Status: http.StatusBadGateway, Type: api.TypeServer, Code: "agent_failed", Settled: true,
		Message: fmt.Sprintf("the agent failed: %s. Try: POST /v1/turns/%s/retry", reason, id),
	}
}

// streamChat sends the answer as chunks. What is on disk already goes out as one piece, so that a text
// that an interruption made void is not shown when a request is repeated. A live one cannot be taken
// back: chunks have no way to say so, and the stream ends with an error.
func (o *Endpoints) streamChat(w http.ResponseWriter, r *http.Request, b *api.Backend, t queue.Turn, usage bool) error {
	out := &chatStream{Stream: api.NewStream(w), turn: t, usage: usage}
	for u, err := range api.Follow(r.Context(), o.retirement, b.Queue, t.ID, 0) {
		switch {
		case err != nil && out.Open:
			e, _ := api.CutShort(&o.log, r, err, "the same request with the same Idempotency-Key, or GET /v1/turns/"+t.ID)
			return errors.Join(out.fail(e), out.End())
		case err != nil:
			return err
		case u.Event != nil:
			err = out.event(*u.Event)
		case u.Waits != nil && out.Open:
			err = out.Comment("waiting: " + u.Waits.Reason)
		case u.Waits != nil: // until something is written a restart can hold the request
		case out.Open:
			err = out.Comment("keep-alive")
		default:
			err = out.role()
		}
		if err == nil && out.Open {
			err = out.Flush()
		}
		if err != nil {
			return err
		}
		if out.ended {
			break
		}
	}
	return out.End()
}

// chatStream maps a turn's events to chunks.
type chatStream struct {
	*api.Stream
	turn  queue.Turn // as it was accepted; events up to its LastEvent are history
	usage bool

	greeted bool            // the chunk with the role was sent
	held    strings.Builder // text of history that may still become void
	sent    bool            // text of the current attempt was sent
	ended   bool
}

func (c *chatStream) event(e queue.Event) error {
	history := e.Seq < c.turn.LastEvent
	switch e.Type {
	case queue.EventCollected: // has no place in the protocol
	case queue.EventStarted:
		return c.role()
	case queue.EventDelta:
		c.held.WriteString(e.Text)
		if history {
			return nil
		}
		return c.text()
	case queue.EventInterrupted:
		c.held.Reset()
		if !c.sent {
			return nil
		}
		c.ended = true
		return c.fail(&api.Error{
			Type: api.TypeServer, Code: "attempt_interrupted",
			Message: "the attempt was interrupted and its text is void; the turn starts over. Try: the same request with the same Idempotency-Key, or GET /v1/turns/" + c.turn.ID,
		})
	case queue.EventRequeued:
		c.held.Reset()
	case queue.EventCompleted, queue.EventFailed, queue.EventCancelled:
		if history { // the turn was retried since
			return nil
		}
		return c.final(e)
	}
	return nil
}

func (c *chatStream) final(e queue.Event) error {
	c.ended = true
	if e.Type == queue.EventCompleted {
		return c.finish(answerOf(e.Detail))
	}
	failure := unanswered(c.turn.ID, e.Type == queue.EventCancelled, e.Text)
	if !c.Open {
		return failure // nothing was sent, so the status can still say it
	}
	return c.fail(failure)
}

// role sends the chunk that every answer begins with.
func (c *chatStream) role() error {
	if c.greeted {
		return nil
	}
	c.greeted = true
	empty := ""
	return c.chunk(&chatDelta{Role: "assistant", Content: &empty}, nil)
}

func (c *chatStream) text() error {
	text := c.held.String()
	c.held.Reset()
	if text == "" {
		return nil
	}
	c.sent = true
	return c.chunk(&chatDelta{Content: &text}, nil)
}

func (c *chatStream) finish(detail conversation.Answer) error {
	if err := errors.Join(c.role(), c.text()); err != nil {
		return err
	}
	for i, call := range detail.ToolCalls {
		if err := c.chunk(&chatDelta{ToolCalls: []indexedCall{{i, call}}}, nil); err != nil {
			return err
		}
	}
	finish := finishOf(detail)
	if err := c.chunk(&chatDelta{}, &finish); err != nil {
		return err
	}
	if c.usage {
		document := chatDocument(c.turn, "chat.completion.chunk")
		document.Usage = usageOf(detail).orZero()
		if err := c.Send("", "", document); err != nil {
			return err
		}
	}
	return c.SendText("", "", "[DONE]")
}

func (c *chatStream) chunk(delta *chatDelta, finish *string) error {
	return c.Send("", "", chatDocument(c.turn, "chat.completion.chunk", chatChoice{Delta: delta, FinishReason: finish}))
}

// fail ends the stream with an error that OpenAI's clients raise. There is no [DONE] behind it.
func (c *chatStream) fail(e *api.Error) error {
	c.ended = true
	return c.Send("", "", e.Document())
}
