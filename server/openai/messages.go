package openai

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gateway/internal/conversation"
	"gateway/server/api"
)

// parseMessages reads a conversation whose last message is the user's or a tool's: the input. param is where it was
// in the request, textTypes are the parts that are text there.
func parseMessages(raw json.RawMessage, param string, textTypes ...string) (all []conversation.Message, input string, err error) {
	var items []api.Fields
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, "", api.Invalid(param, "invalid_type", "%s is not an array of messages. Try: [{\"role\":\"user\",\"content\":\"hello\"}]", param)
	}
	if len(items) == 0 {
		return nil, "", api.Invalid(param, "missing_parameter", "%s is empty. Try: at least one message of role user", param)
	}
	for i, item := range items {
		m, err := parseMessage(item, fmt.Sprintf("%s[%d]", param, i), textTypes)
		if err != nil {
			return nil, "", err
		}
		all = append(all, m)
	}
	last := all[len(all)-1]
	if last.Role == "tool" {
		return all, cmp.Or(last.Content, "(nothing)"), nil
	}
	if last.Role != "user" {
		return nil, "", api.Invalid(fmt.Sprintf("%s[%d].role", param, len(all)-1), "invalid_value", "the last message must have the role user, because the agent answers it. Try: a last message of role user")
	}
	if last.Content == "" {
		return nil, "", api.Invalid(fmt.Sprintf("%s[%d].content", param, len(all)-1), "invalid_value", "the last message has no text. Try: {\"role\":\"user\",\"content\":\"hello\"}")
	}
	return all, last.Content, nil
}

func parseMessage(item api.Fields, where string, textTypes []string) (conversation.Message, error) {
	var m conversation.Message
	var kind string
	if item == nil {
		return m, api.Invalid(where, "invalid_type", "%s is not a message. Try: {\"role\":\"user\",\"content\":\"hello\"}", where)
	}
	content := item["content"]
	item.Drop("content", "id", "status") // an earlier answer's own are of no use to the agent
	if err := item.TakeMember("type", &kind); err != nil {
		return m, api.Nested(err, where)
	}
	switch kind {
	case "", "message":
	case "function_call", "function_call_output":
		return parseCallItem(kind, item, content, where, textTypes)
	default:
		return m, api.Unsupported(where+".type", fmt.Sprintf("items of type %q are not understood. Try: messages only", api.Clip(kind)))
	}
	if err := item.TakeMember("role", &m.Role); err != nil {
		return m, api.Nested(err, where)
	}
	switch m.Role {
	case "system", "developer", "user":
	case "assistant":
		if err := item.TakeMember("tool_calls", &m.ToolCalls); err != nil {
			return m, api.Nested(err, where)
		}
		if err := checkCalls(m.ToolCalls, where+".tool_calls"); err != nil {
			return m, err
		}
	case "tool":
		if err := item.TakeMember("tool_call_id", &m.ToolCallID); err != nil {
			return m, api.Nested(err, where)
		}
		if m.ToolCallID == "" || !api.Printable(m.ToolCallID, maxCallID) {
			return m, api.Invalid(where+".tool_call_id", "invalid_value", "%s.tool_call_id is not the id of a call. Try: the id that the answer gave it", where)
		}
	default:
		return m, api.Invalid(where+".role", "invalid_value", "%s.role is not known. Try: system, developer, user, assistant or tool", where)
	}
	if err := item.TakeMember("name", &m.Name); err != nil {
		return m, api.Nested(err, where)
	}
	if !api.Printable(m.Name, api.MaxName) {
		return m, api.Invalid(where+".name", "invalid_value", "%s.name must be at most %d printable characters. Try: a shorter one, without line breaks", where, api.MaxName)
	}
	if err := item.RefuseRest(where + "."); err != nil {
		return m, err
	}
	if len(m.ToolCalls) > 0 && (len(content) == 0 || string(content) == "null") {
		return m, nil
	}
	var err error
	m.Content, err = parseContent(content, where+".content", textTypes)
	return m, err
}

// parseCallItem reads the items of responses that stand for a tool's call and for what it returned.
func parseCallItem(kind string, item api.Fields, content json.RawMessage, where string, textTypes []string) (conversation.Message, error) {
	var id, name, arguments string
	var output json.RawMessage
	err := item.TakeMembers(api.Into("call_id", &id), api.Into("name", &name), api.Into("arguments", &arguments), api.Into("output", &output))
	if err != nil {
		return conversation.Message{}, api.Nested(err, where)
	}
	if len(content) > 0 {
		return conversation.Message{}, api.Unsupported(where+".content", fmt.Sprintf("an item of type %q has none. Try: without it", kind))
	}
	if err := item.RefuseRest(where + "."); err != nil {
		return conversation.Message{}, err
	}
	if kind == "function_call" {
		m := conversation.Message{Role: "assistant", ToolCalls: []conversation.ToolCall{{ID: id, Type: "function", Function: conversation.Function{Name: name, Arguments: arguments}}}}
		return m, checkCalls(m.ToolCalls, where)
	}
	if id == "" || !api.Printable(id, maxCallID) {
		return conversation.Message{}, api.Invalid(where+".call_id", "invalid_value", "%s.call_id is not the id of a call. Try: the call_id of the function_call", where)
	}
	m := conversation.Message{Role: "tool", ToolCallID: id}
	m.Content, err = parseContent(output, where+".output", textTypes)
	return m, err
}

// joinCalls makes one message of the calls that an answer made at once, as chat completions have it.
func joinCalls(all []conversation.Message) (joined []conversation.Message) {
	for _, m := range all {
		if last := len(joined) - 1; last >= 0 && len(m.ToolCalls) > 0 && m.Content == "" && joined[last].Role == "assistant" {
			joined[last].ToolCalls = append(joined[last].ToolCalls, m.ToolCalls...)
			continue
		}
		joined = append(joined, m)
	}
	return joined
}

// parseContent reads a string or an array of text parts.
func parseContent(raw json.RawMessage, where string, textTypes []string) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", api.Invalid(where, "missing_parameter", "%s is missing. Try: \"content\":\"hello\"", where)
	}
	var whole string
	if json.Unmarshal(raw, &whole) == nil {
		return whole, nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", api.Invalid(where, "invalid_type", "%s is neither a string nor an array of text parts. Try: \"content\":\"hello\"", where)
	}
	texts := make([]string, 0, len(parts))
	for i, part := range parts {
		if !slices.Contains(textTypes, part.Type) {
			return "", api.Unsupported(fmt.Sprintf("%s[%d].type", where, i), fmt.Sprintf("parts of type %q are not understood. Try: text only", api.Clip(part.Type)))
		}
		if part.Text == nil {
			return "", api.Invalid(fmt.Sprintf("%s[%d].text", where, i), "missing_parameter", "%s[%d].text is missing. Try: \"text\":\"hello\"", where, i)
		}
		texts = append(texts, *part.Text)
	}
	return strings.Join(texts, "\n"), nil
}
