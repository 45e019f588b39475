package openai

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/conversation"
	"gateway/server/api"
)

func TestWhatAChatCannotDoIsRefusedByName(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for name, c := range map[string]struct{ body, code, param string }{
		"empty body":           {``, "invalid_json", ""},
		"not an object":        {`[]`, "invalid_json", ""},
		"null":                 {`null`, "invalid_json", ""},
		"broken":               {`{"messages":`, "invalid_json", ""},
		"trailing":             {`{` + messages + `} x`, "invalid_json", ""},
		"no messages":          {`{"model":"echo"}`, "missing_parameter", "messages"},
		"messages not a list":  {`{"messages":"hi"}`, "invalid_type", "messages"},
		"messages empty":       {`{"messages":[]}`, "missing_parameter", "messages"},
		"message null":         {`{"messages":[null]}`, "invalid_type", "messages[0]"},
		"last not the user's":  {`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`, "invalid_value", "messages[1].role"},
		"unknown role":         {`{"messages":[{"role":"god","content":"a"}]}`, "invalid_value", "messages[0].role"},
		"tool role":            {`{"messages":[{"role":"tool","content":"a"}]}`, "invalid_value", "messages[0].tool_call_id"},
		"role of a wrong type": {`{"messages":[{"role":1,"content":"a"}]}`, "invalid_type", "messages[0].role"},
		"no content":           {`{"messages":[{"role":"user"}]}`, "missing_parameter", "messages[0].content"},
		"content a number":     {`{"messages":[{"role":"user","content":1}]}`, "invalid_type", "messages[0].content"},
		"content empty":        {`{"messages":[{"role":"user","content":""}]}`, "invalid_value", "messages[0].content"},
		"image":                {`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`, "unsupported_parameter", "messages[0].content[0].type"},
		"text part without":    {`{"messages":[{"role":"user","content":[{"type":"text"}]}]}`, "missing_parameter", "messages[0].content[0].text"},
		"tool calls":           {`{"messages":[{"role":"assistant","content":"a","tool_calls":[{"id":"1"}]},{"role":"user","content":"b"}]}`, "unsupported_parameter", "messages[0].tool_calls[0].type"},
		"tools":                {`{` + messages + `,"tools":[{"type":"function"}]}`, "invalid_type", "tools[0].function"},
		"tool without a name":  {`{` + messages + `,"tools":[{"type":"function","function":{}}]}`, "invalid_value", "tools[0].function.name"},
		"flat tool":            {`{` + messages + `,"tools":[{"type":"function","name":"f"}]}`, "unsupported_parameter", "tools[0].name"},
		"tool that is not one": {`{` + messages + `,"tools":[1]}`, "invalid_type", "tools[0]"},
		"another tool chosen":  {`{` + messages + `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}}}`, "invalid_value", "tool_choice"},
		"unknown choice":       {`{` + messages + `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"any"}`, "invalid_value", "tool_choice"},
		"parallel":             {`{` + messages + `,"tools":[{"type":"function","function":{"name":"f"}}],"parallel_tool_calls":1}`, "invalid_type", "parallel_tool_calls"},
		"required, no tools":   {`{` + messages + `,"tool_choice":"required"}`, "unsupported_parameter", "tool_choice"},
		"functions":            {`{` + messages + `,"functions":[{"name":"f"}]}`, "unsupported_parameter", "functions"},
		"several answers":      {`{` + messages + `,"n":2}`, "unsupported_parameter", "n"},
		"unknown":              {`{` + messages + `,"bogus":1}`, "unsupported_parameter", "bogus"},
		"another case":         {`{` + messages + `,"Model":"echo"}`, "unsupported_parameter", "Model"},
		"temperature":          {`{` + messages + `,"temperature":3}`, "invalid_value", "temperature"},
		"max_tokens":           {`{` + messages + `,"max_tokens":0}`, "invalid_value", "max_tokens"},
		"stop":                 {`{` + messages + `,"stop":["1","2","3","4","5"]}`, "invalid_value", "stop"},
		"seed":                 {`{` + messages + `,"seed":1.5}`, "invalid_value", "seed"},
		"stream a string":      {`{` + messages + `,"stream":"yes"}`, "invalid_type", "stream"},
		"options, no stream":   {`{` + messages + `,"stream_options":{"include_usage":true}}`, "invalid_value", "stream_options"},
		"user with a newline":  {`{` + messages + `,"user":"a\nb"}`, "invalid_value", "user"},
		"user too long":        {`{` + messages + `,"user":"` + strings.Repeat("a", api.MaxName+1) + `"}`, "invalid_value", "user"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseChat([]byte(c.body))
			e := asAPIError(t, err)
			require.Equal(t, http.StatusBadRequest, e.Status)
			require.Equal(t, c.code, e.Code, e.Message)
			require.Equal(t, 1, strings.Count(e.Message, ". Try: "), e.Message)
			require.Equal(t, c.param, e.Param, e.Message)
		})
	}
}

func TestWhatAResponseCannotDoIsRefusedByName(t *testing.T) {
	long := strings.Repeat("a", 600)
	pairs := make(map[string]string)
	for i := range maxMetadata + 1 {
		pairs[strings.Repeat("k", i+1)] = "v"
	}
	many, err := json.Marshal(pairs)
	require.NoError(t, err)
	for name, c := range map[string]struct{ body, code, param string }{
		"no input":               {`{}`, "missing_parameter", "input"},
		"input empty":            {`{"input":""}`, "invalid_value", "input"},
		"input a number":         {`{"input":1}`, "invalid_type", "input"},
		"item of a tool":         {`{"input":[{"type":"function_call_output","output":"x"}]}`, "invalid_value", "input[0].call_id"},
		"call without a name":    {`{"input":[{"type":"function_call","call_id":"c","arguments":"{}"},{"role":"user","content":"x"}]}`, "invalid_value", "input[0][0].function.name"},
		"image":                  {`{"input":[{"role":"user","content":[{"type":"input_image"}]}]}`, "unsupported_parameter", "input[0].content[0].type"},
		"last not the user's":    {`{"input":[{"role":"assistant","content":"x"}]}`, "invalid_value", "input[0].role"},
		"not stored":             {`{"input":"x","store":false}`, "unsupported_parameter", "store"},
		"truncation":             {`{"input":"x","truncation":"auto"}`, "unsupported_parameter", "truncation"},
		"schema":                 {`{"input":"x","text":{"format":{"type":"json_schema"}}}`, "unsupported_parameter", "text.format"},
		"tools":                  {`{"input":"x","tools":[{"type":"web_search"}]}`, "unsupported_parameter", "tools[0].type"},
		"reasoning":              {`{"input":"x","reasoning":{"effort":"low"}}`, "unsupported_parameter", "reasoning"},
		"metadata, value long":   {`{"input":"x","metadata":{"k":"` + long + `"}}`, "invalid_value", "metadata"},
		"metadata, many":         {`{"input":"x","metadata":` + string(many) + `}`, "invalid_value", "metadata"},
		"metadata a list":        {`{"input":"x","metadata":[1]}`, "invalid_type", "metadata"},
		"conversation a number":  {`{"input":"x","conversation":1}`, "invalid_type", "conversation"},
		"conversation nameless":  {`{"input":"x","conversation":{}}`, "invalid_type", "conversation"},
		"both ways to go on":     {`{"input":"x","conversation":"c","previous_response_id":"r"}`, "invalid_value", "previous_response_id"},
		"previous too long":      {`{"input":"x","previous_response_id":"` + long + `"}`, "invalid_value", "previous_response_id"},
		"chat's name for tokens": {`{"input":"x","max_tokens":5}`, "unsupported_parameter", "max_tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseResponses([]byte(c.body))
			e := asAPIError(t, err)
			require.Equal(t, http.StatusBadRequest, e.Status)
			require.Equal(t, c.code, e.Code, e.Message)
			require.Equal(t, 1, strings.Count(e.Message, ". Try: "), e.Message)
			require.Equal(t, c.param, e.Param, e.Message)
		})
	}
}

func TestBrokenJSONIsRefusedWithItsPlace(t *testing.T) {
	_, err := parseChat([]byte(`{"model": nope}`))
	require.Contains(t, asAPIError(t, err).Message, "byte 12")
	_, err = parseChat([]byte(`{} {}`))
	require.Contains(t, asAPIError(t, err).Message, "byte 4")
}

func TestTheContextKeepsWhatTheInputDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		parse func([]byte) (submission, error)
		body  string
		want  string
	}{
		"a chat of one message": {chatSubmission, `{"model":"echo","messages":[{"role":"user","content":"hi"}],"metadata":{"a":"b"},"store":true,"user":"u","tools":[],"logprobs":false}`, ``},
		"a chat with parameters": {
			chatSubmission, `{"messages":[{"role":"user","content":"hi"}],"temperature":0.5,"stop":["."],"seed":null}`,
			`{"params":{"stop":["."],"temperature":0.5}}`,
		},
		"a chat with a past": {
			chatSubmission, `{"messages":[{"role":"system","content":"be brief"},{"role":"user","name":"ann","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`,
			`{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"a\nb","name":"ann"}]}`,
		},
		"a chat with tools": {
			chatSubmission, `{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"42"}],
			"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"auto"}`,
			`{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"42","tool_call_id":"c1"}],` +
				`"params":{"tool_choice":"auto","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}}`,
		},
		"a response to calls": {
			responseSubmission, `{"input":[{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call","call_id":"c2","name":"g","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"1"},{"type":"function_call_output","call_id":"c2","output":""}],
			"tools":[{"type":"function","name":"f","strict":true}],"tool_choice":{"type":"function","name":"f"}}`,
			`{"messages":[{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},` +
				`{"role":"tool","content":"1","tool_call_id":"c1"},{"role":"tool","content":"","tool_call_id":"c2"}],` +
				`"params":{"tool_choice":{"function":{"name":"f"},"type":"function"},"tools":[{"type":"function","function":{"name":"f","strict":true}}]}}`,
		},
		"a response": {responseSubmission, `{"input":"hi","store":true,"truncation":"disabled","text":{"format":{"type":"text"}}}`, ``},
		"a response with everything": {
			responseSubmission, `{"input":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"before","annotations":[]}]},{"role":"user","content":"now"}],
			"instructions":"be brief","background":true,"metadata":{"k":"v"},"temperature":1,"max_output_tokens":9,"previous_response_id":"r1"}`,
			`{"messages":[{"role":"assistant","content":"before"},{"role":"user","content":"now"}],"append":true,"instructions":"be brief","params":{"max_completion_tokens":9,"temperature":1},"metadata":{"k":"v"},"background":true,"previous_response_id":"r1"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			sub, err := c.parse([]byte(c.body))
			require.NoError(t, err)
			got, err := sub.sent.Encode()
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
}

func chatSubmission(body []byte) (submission, error) {
	q, err := parseChat(body)
	return q.submission, err
}

func responseSubmission(body []byte) (submission, error) {
	q, err := parseResponses(body)
	return q.submission, err
}

// checkParsed holds what must be true of any body: it is refused as the client's fault, with a message, or
// it names an input and a context that can be read back.
func checkParsed(t *testing.T, sub submission, err error) {
	t.Helper()
	if err != nil {
		var e *api.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, http.StatusBadRequest, e.Status)
		require.NotEmpty(t, e.Message)
		require.NotEmpty(t, e.Code)
		return
	}
	require.NotEmpty(t, sub.input)
	require.True(t, api.Printable(sub.session, api.MaxName))
	raw, err := sub.sent.Encode()
	require.NoError(t, err)
	if raw != nil {
		var back conversation.Sent
		require.NoError(t, json.Unmarshal(raw, &back))
		if len(back.Messages) > 0 {
			require.Equal(t, sub.input, back.Messages[len(back.Messages)-1].Content)
		}
	}
}

func FuzzChatRequest(f *testing.F) {
	f.Add([]byte(`{"model":"echo","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`))
	f.Add([]byte(`{"messages":[{"role":"system","content":[{"type":"text","text":"a"}]},{"role":"user","content":"b"}],"stop":["x"],"n":1,"seed":-1}`))
	f.Add([]byte(`{"messages":[{"role":"tool"}],"tools":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := parseChat(body)
		checkParsed(t, q.submission, err)
	})
}

func FuzzResponsesRequest(f *testing.F) {
	f.Add([]byte(`{"model":"echo","input":"hi","background":true,"metadata":{"k":"v"},"conversation":{"id":"c"}}`))
	f.Add([]byte(`{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]}],"temperature":1e-3}`))
	f.Add([]byte(`{"input":[{"type":"reasoning"}],"store":false,"text":{"format":{"type":"json_object"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := parseResponses(body)
		checkParsed(t, q.submission, err)
	})
}
