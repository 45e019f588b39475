package openai

import (
	"encoding/json"
	"fmt"
	"regexp"

	"gateway/internal/conversation"
	"gateway/server/api"
)

// Agents that are models may be given tools: functions that the client runs. A call of one is part of the
// answer, and what it returned is a message of the next turn. They are kept in the words of chat completions.

const (
	maxTools     = 128
	maxToolCalls = 128 // in one message
	maxCallID    = 256 // bytes
)

// toolName is what OpenAI allows.
func toolName(name string) bool { return len(name) <= 64 && toolNameForm.MatchString(name) }

// Without a count of characters: each would be a copy of its own, compiled at every start.
var toolNameForm = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

type (
	// tool is a function that the client runs, as chat completions have it.
	tool struct {
		Type     string   `json:"type"`
		Function function `json:"function"`
	}
	function struct {
		Name        string          `json:"name"`
		Description string          `json:"description,omitempty"`
		Parameters  json.RawMessage `json:"parameters,omitempty"`
		Strict      *bool           `json:"strict,omitempty"`
	}
	// flatTool is the same as responses have it.
	flatTool struct {
		Type string `json:"type"`
		function
	}
)

// takeTools takes the tools of a request and what it says about them, as chat completions have them, into
// params. flat reads them as responses have them. It reports whether there are any.
func takeTools(f api.Fields, params *map[string]json.RawMessage, flat bool) (found bool, err error) {
	var raw []json.RawMessage
	if err := f.TakeMember("tools", &raw); err != nil {
		return false, err
	}
	choice, parallel := f["tool_choice"], f["parallel_tool_calls"]
	if len(raw) == 0 { // then the rest says nothing
		if asked := string(choice); asked == `"auto"` || asked == `"none"` {
			f.Drop("tool_choice")
		}
		f.Drop("parallel_tool_calls")
		return false, nil
	}
	f.Drop("tool_choice", "parallel_tool_calls")
	if len(raw) > maxTools {
		return false, api.Invalid("tools", "invalid_value", "there are more than %d tools. Try: fewer", maxTools)
	}
	names := make(map[string]bool)
	tools := make([]tool, len(raw))
	for i := range raw {
		if tools[i], err = parseTool(raw[i], fmt.Sprintf("tools[%d]", i), flat); err != nil {
			return false, err
		}
		names[tools[i].Function.Name] = true
	}
	if *params == nil {
		*params = make(map[string]json.RawMessage)
	}
	if (*params)["tools"], err = json.Marshal(tools); err != nil {
		return false, fmt.Errorf("server: encoding the tools: %w", err)
	}
	if len(choice) > 0 && string(choice) != "null" {
		if (*params)["tool_choice"], err = parseChoice(choice, names, flat); err != nil {
			return false, err
		}
	}
	switch string(parallel) {
	case "", "null":
	case "true", "false":
		(*params)["parallel_tool_calls"] = parallel
	default:
		return false, api.Invalid("parallel_tool_calls", "invalid_type", "parallel_tool_calls is neither true nor false. Try: without it")
	}
	return true, nil
}

func parseTool(raw json.RawMessage, where string, flat bool) (tool, error) {
	var t flatTool
	f, err := api.ParseFields(raw)
	if err != nil {
		return tool{}, api.Invalid(where, "invalid_type", "%s is not an object. Try: {\"type\":\"function\", …}", where)
	}
	if err := f.TakeMember("type", &t.Type); err != nil {
		return tool{}, api.Nested(err, where)
	}
	if t.Type != "function" {
		return tool{}, api.Unsupported(where+".type", fmt.Sprintf("the gateway does not run tools of type %q. Try: functions, which the client runs", api.Clip(t.Type)))
	}
	if !flat {
		var inner json.RawMessage
		if err := f.TakeMember("function", &inner); err != nil {
			return tool{}, api.Nested(err, where)
		}
		if err := f.RefuseRest(where + "."); err != nil {
			return tool{}, err
		}
		where += ".function"
		if f, err = api.ParseFields(inner); err != nil {
			return tool{}, api.Invalid(where, "invalid_type", "%s is not an object. Try: {\"name\":\"f\",\"parameters\":{}}", where)
		}
	}
	err = f.TakeMembers(api.Into("name", &t.Name), api.Into("description", &t.Description),
		api.Into("parameters", &t.Parameters), api.Into("strict", &t.Strict))
	if err != nil {
		return tool{}, api.Nested(err, where)
	}
	if !toolName(t.Name) {
		return tool{}, api.Invalid(where+".name", "invalid_value", "%s.name is not the name of a function. Try: letters, digits, _ and -, at most 64", where)
	}
	return tool{t.Type, t.function}, f.RefuseRest(where + ".")
}

// parseChoice reads which tool is to be called.
func parseChoice(raw json.RawMessage, names map[string]bool, flat bool) (json.RawMessage, error) {
	var word string
	if json.Unmarshal(raw, &word) == nil {
		switch word {
		case "none", "auto", "required":
			return raw, nil
		}
		return nil, api.Invalid("tool_choice", "invalid_value", "tool_choice %q is not known. Try: none, auto or required", api.Clip(word))
	}
	var one struct {
		Type     string
		Name     string
		Function struct{ Name string }
	}
	if json.Unmarshal(raw, &one) != nil || one.Type != "function" {
		return nil, api.Unsupported("tool_choice", "only a function can be chosen. Try: none, auto, required, or a function's name")
	}
	name := one.Function.Name
	if flat {
		name = one.Name
	}
	if !names[name] {
		return nil, api.Invalid("tool_choice", "invalid_value", "tool_choice names %q, which is not among the tools. Try: one of tools", api.Clip(name))
	}
	return json.Marshal(map[string]any{"type": "function", "function": map[string]string{"name": name}})
}

// checkCalls checks the calls that an earlier answer made.
func checkCalls(calls []conversation.ToolCall, where string) error {
	if len(calls) > maxToolCalls {
		return api.Invalid(where, "invalid_value", "%s has more than %d calls. Try: fewer", where, maxToolCalls)
	}
	for i, c := range calls {
		at := fmt.Sprintf("%s[%d]", where, i)
		switch {
		case c.Type != "function":
			return api.Unsupported(at+".type", fmt.Sprintf("calls of type %q are not understood. Try: functions only", api.Clip(c.Type)))
		case c.ID == "" || !api.Printable(c.ID, maxCallID):
			return api.Invalid(at+".id", "invalid_value", "%s.id is not the id of a call. Try: the id that the answer gave it", at)
		case !toolName(c.Function.Name):
			return api.Invalid(at+".function.name", "invalid_value", "%s.function.name is not the name of a function. Try: the name that the answer gave", at)
		}
	}
	return nil
}

// flatTools and flatChoice echo the tools of a response's request.
func flatTools(raw json.RawMessage) []flatTool {
	var tools []tool
	_ = json.Unmarshal(raw, &tools) // what another writer of the store left there is not echoed
	flat := make([]flatTool, len(tools))
	for i, t := range tools {
		flat[i] = flatTool{t.Type, t.Function}
	}
	return flat
}

func flatChoice(raw json.RawMessage, tools int) any {
	var one tool
	switch {
	case tools == 0:
		return "none"
	case len(raw) == 0:
		return "auto"
	case json.Unmarshal(raw, &one) == nil && one.Function.Name != "":
		return map[string]string{"type": "function", "name": one.Function.Name}
	}
	return raw
}

// finishOf is why the answer ended, in the words of chat completions.
func finishOf(d conversation.Answer) string {
	switch {
	case d.FinishReason != "":
		return d.FinishReason
	case len(d.ToolCalls) > 0:
		return "tool_calls"
	}
	return "stop"
}

// incompleteOf is why a response is incomplete although its turn completed; empty when it is whole.
func incompleteOf(d conversation.Answer) string {
	switch d.FinishReason {
	case "length":
		return "max_output_tokens"
	case "content_filter":
		return d.FinishReason
	}
	return ""
}
