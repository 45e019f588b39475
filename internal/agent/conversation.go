package agent

import (
	"context"
	"fmt"

	openai "github.com/sashabaranov/go-openai"

	"gateway/internal/conversation"
	"gateway/queue"
)

// request is the conversation so far: what the client sent when it sent a whole one, else the turns of the
// session.
func (e *endpoint) request(ctx context.Context, w queue.Work) (openai.ChatCompletionRequest, error) {
	c, err := conversation.SentWith(w.Turn)
	if err != nil {
		return openai.ChatCompletionRequest{}, err
	}
	req, err := withParams(c.Params)
	if err != nil {
		return req, err
	}
	req.Model, req.Stream = e.model, true
	req.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	talk := dialogue{}
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

// dialogue is a list of messages as the client library has them.
type dialogue []openai.ChatCompletionMessage

func (c *dialogue) say(role, content string) {
	if content != "" {
		*c = append(*c, openai.ChatCompletionMessage{Role: role, Content: content})
	}
}

// turn adds a turn of the session, with the tools that its answer called.
func (c *dialogue) turn(t queue.Turn) error {
	sent, err := conversation.SentWith(t)
	if err != nil {
		return err
	}
	if !sent.Append {
		sent.Messages = nil // they tell of the turns before once more
	}
	c.asked(sent, t.Input)
	got, err := conversation.AnswerIn(t.Detail)
	if err != nil {
		return fmt.Errorf("the detail of turn %s cannot be read: %w", t.ID, err)
	}
	if t.Output != "" || len(got.ToolCalls) > 0 {
		c.add(conversation.Message{Role: openai.ChatMessageRoleAssistant, Content: t.Output, ToolCalls: got.ToolCalls})
	}
	return nil
}

// asked adds what the client sent.
func (c *dialogue) asked(sent conversation.Sent, input string) {
	if len(sent.Messages) == 0 {
		c.say(openai.ChatMessageRoleUser, input)
	}
	for _, m := range sent.Messages {
		if m.Content != "" || len(m.ToolCalls) > 0 || m.Role == openai.ChatMessageRoleTool {
			c.add(m)
		}
	}
}

func (c *dialogue) add(m conversation.Message) {
	calls := make([]openai.ToolCall, len(m.ToolCalls))
	for i, call := range m.ToolCalls {
		calls[i] = openai.ToolCall{
			ID: call.ID, Type: openai.ToolType(call.Type),
			Function: openai.FunctionCall{Name: call.Function.Name, Arguments: call.Function.Arguments},
		}
	}
	*c = append(*c, openai.ChatCompletionMessage{
		Role: m.Role, Content: m.Content, Name: m.Name, ToolCalls: calls, ToolCallID: m.ToolCallID,
	})
}

// whole leaves out calls of tools that nobody answered: endpoints refuse a conversation that has them.
func (c dialogue) whole() []openai.ChatCompletionMessage {
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
