package agent

import (
	"context"
	"encoding/json"
	"fmt"

	openai "github.com/sashabaranov/go-openai"

	"gateway/queue"
)

// clientContext is the part of [queue.Turn.Context] that agents understand.
type clientContext struct {
	// Messages are in the words of chat completions. They are the whole conversation, or with Append what is
	// new in that of the session.
	Messages     []openai.ChatCompletionMessage `json:"messages"`
	Append       bool                           `json:"append"`
	Instructions string                         `json:"instructions"`
	Params       map[string]json.RawMessage     `json:"params"`
}

// request is the conversation so far: what the client sent when it sent a whole one, else the turns of the
// session.
func (e *endpoint) request(ctx context.Context, w queue.Work) (openai.ChatCompletionRequest, error) {
	c, err := contextOf(w.Turn)
	if err != nil {
		return openai.ChatCompletionRequest{}, err
	}
	req, err := withParams(c.Params)
	if err != nil {
		return req, err
	}
	req.Model, req.Stream = e.model, true
	req.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	talk := conversation{}
	talk.say(openai.ChatMessageRoleSystem, e.system)
	talk.say(openai.ChatMessageRoleSystem, c.Instructions)
	if len(c.Messages) == 0 || c.Append {
		history, err := w.History(ctx, historyTurns)
		if err != nil {
			return req, fmt.Errorf("reading the session: %w", err)
		}
		for _, t := range history {
			if err := talk.turn(t); err != nil {
				return req, err
			}
		}
	}
	talk.asked(c, w.Turn.Input)
	req.Messages = talk.whole()
	return req, nil
}

func contextOf(t queue.Turn) (c clientContext, err error) {
	if len(t.Context) > 0 {
		if err := json.Unmarshal(t.Context, &c); err != nil {
			return c, fmt.Errorf("the context of turn %s cannot be read: %w", t.ID, err)
		}
	}
	return c, nil
}

// conversation is a list of messages.
type conversation []openai.ChatCompletionMessage

func (c *conversation) say(role, content string) {
	if content != "" {
		*c = append(*c, openai.ChatCompletionMessage{Role: role, Content: content})
	}
}

// turn adds a turn of the session, with the tools that its answer called.
func (c *conversation) turn(t queue.Turn) error {
	sent, err := contextOf(t)
	if err != nil {
		return err
	}
	if !sent.Append {
		sent.Messages = nil // they tell of the turns before once more
	}
	c.asked(sent, t.Input)
	var got answer
	if len(t.Detail) > 0 {
		if err := json.Unmarshal(t.Detail, &got); err != nil {
			return fmt.Errorf("the detail of turn %s cannot be read: %w", t.ID, err)
		}
	}
	if t.Output != "" || len(got.ToolCalls) > 0 {
		*c = append(*c, openai.ChatCompletionMessage{
			Role: openai.ChatMessageRoleAssistant, Content: t.Output, ToolCalls: got.ToolCalls,
		})
	}
	return nil
}

// asked adds what the client sent.
func (c *conversation) asked(sent clientContext, input string) {
	if len(sent.Messages) == 0 {
		c.say(openai.ChatMessageRoleUser, input)
	}
	for _, m := range sent.Messages {
		if m.Content != "" || len(m.ToolCalls) > 0 || m.Role == openai.ChatMessageRoleTool {
			*c = append(*c, m)
		}
	}
}

// whole leaves out calls of tools that nobody answered: endpoints refuse a conversation that has them.
func (c conversation) whole() []openai.ChatCompletionMessage {
	answered := make(map[string]bool)
	for _, m := range c {
		answered[m.ToolCallID] = true
	}
	var messages []openai.ChatCompletionMessage
	for _, m := range c {
		all := true
		for _, call := range m.ToolCalls {
			all = all && answered[call.ID]
		}
		if !all {
			m.ToolCalls = nil
		}
		if m.Content != "" || len(m.ToolCalls) > 0 || m.Role == openai.ChatMessageRoleTool {
			messages = append(messages, m)
		}
	}
	return messages
}
