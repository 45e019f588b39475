// Package conversation is what a turn keeps besides its input and the text of its answer, in the words of chat
// completions: what the client sent, in [queue.Turn.Context], and what a model said about its answer, in
// [queue.Turn.Detail].
//
// The invariant: the server writes the one, agents write the other, both read both, and each is declared here and
// nowhere else.
package conversation

import (
	"encoding/json"
	"fmt"

	"gateway/queue"
)

// Sent is what the client sent besides the input. The zero value is a client that sent nothing else.
type Sent struct {
	// Messages is the whole conversation as the client sent it, the input included; empty when the input
	// was all there was.
	Messages []Message `json:"messages,omitempty"`
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

// Message is one message of a conversation, with its text parts joined by newlines.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
	Name    string `json:"name,omitempty"`
	// ToolCalls is what an answer called; ToolCallID says which call the message of a tool answers.
	ToolCalls  []ToolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

// ToolCall is a call of a function that the client runs.
type ToolCall struct {
	ID       string   `json:"id"`
	Type     string   `json:"type"`
	Function Function `json:"function"`
}

// Function is which function is called; Arguments are JSON.
type Function struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Answer is what a model said about its answer. Agents that are no model say nothing.
type Answer struct {
	FinishReason string     `json:"finish_reason"`
	ToolCalls    []ToolCall `json:"tool_calls,omitempty"`
	// Usage is as the endpoint counted it; nil when it did not.
	Usage json.RawMessage `json:"usage,omitempty"`
}

// Encode returns nil when there is nothing to keep.
func (s Sent) Encode() (json.RawMessage, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("conversation: encoding the context: %w", err)
	}
	if string(raw) == "{}" {
		return nil, nil
	}
	return raw, nil
}

// SentWith reads the turn's context. What could be read is returned with the error.
func SentWith(t queue.Turn) (s Sent, err error) {
	if len(t.Context) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(t.Context, &s); err != nil {
		return s, fmt.Errorf("the context of turn %s cannot be read: %w", t.ID, err)
	}
	return s, nil
}

// AnswerIn reads a turn's detail. What could be read is returned with the error.
func AnswerIn(detail json.RawMessage) (a Answer, err error) {
	if len(detail) > 0 {
		err = json.Unmarshal(detail, &a)
	}
	return a, err
}
