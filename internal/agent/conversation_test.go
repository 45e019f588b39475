package agent

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/internal/config"
	"gateway/queue"
)

// described runs the turn and returns what the agent said about its answer.
func described(t *testing.T, a config.Agent, turn queue.Turn, history ...queue.Turn) string {
	t.Helper()
	s, err := New(map[string]config.Agent{"a": a}, "/state", zerolog.Nop())
	require.NoError(t, err)
	turn.Agent = "a"
	var detail json.RawMessage
	require.NoError(t, s.Run(t.Context(), queue.Work{
		Turn: turn, Emit: func(string) error { return nil },
		Describe: func(d json.RawMessage) error { detail = d; return nil },
		History:  func(context.Context, int) ([]queue.Turn, error) { return history, nil },
	}))
	require.NoError(t, s.Close(context.Background()))
	return string(detail)
}

func TestAnEndpointsToolCallsAndUsageAreKept(t *testing.T) {
	a, got := upstream(t, nil, 0,
		`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\""}}]}}]}`,
		`{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"id":"c2","function":{"name":"now","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		`{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}`, done)
	detail := described(t, a, queue.Turn{Input: "x", Context: json.RawMessage(
		`{"params":{"tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object"}}}],"tool_choice":"required"}}`)})
	require.JSONEq(t, `{"finish_reason":"tool_calls","tool_calls":[
		{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}},
		{"id":"c2","type":"function","function":{"name":"now","arguments":"{}"}}],
		"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":null,"completion_tokens_details":null}}`, detail)
	require.Equal(t, "required", (*got)["tool_choice"])
	require.Len(t, (*got)["tools"], 1)
	require.Equal(t, map[string]any{"include_usage": true}, (*got)["stream_options"])
}

func TestAFragmentOfNoCallFailsTheTurn(t *testing.T) {
	for _, index := range []string{"-1", "7", "1000000000"} {
		a, _ := upstream(t, nil, 0, `{"choices":[{"delta":{"tool_calls":[{"index":`+index+`,"function":{"arguments":"x"}}]}}]}`, done)
		_, err := try(t.Context(), t, a, queue.Turn{Input: "x"})
		require.ErrorContains(t, err, "tool call "+index)
	}
}

func TestTheSessionsConversationHasItsToolCalls(t *testing.T) {
	call := json.RawMessage(`{"finish_reason":"tool_calls","tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{}"}}]}`)
	result := json.RawMessage(`{"append":true,"messages":[{"role":"tool","content":"3","tool_call_id":"c1"}]}`)
	whole := json.RawMessage(`{"messages":[{"role":"user","content":"long ago"},{"role":"user","content":"asked"}]}`)
	a, got := upstream(t, nil, 0, lo, done)

	described(t, a, queue.Turn{Input: "3", Context: result}, queue.Turn{Input: "asked", Context: whole, Detail: call})
	requireMessages(t, *got, `[{"role":"system","content":"be brief"},{"role":"user","content":"asked"},
		{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{}"}}]},
		{"role":"tool","content":"3","tool_call_id":"c1"}]`)

	described(t, a, queue.Turn{Input: "never mind"}, queue.Turn{Input: "asked", Detail: call})
	requireMessages(t, *got, `[{"role":"system","content":"be brief"},{"role":"user","content":"asked"},{"role":"user","content":"never mind"}]`)

	described(t, a, queue.Turn{Input: "and?"},
		queue.Turn{Input: "asked", Detail: call}, queue.Turn{Input: "3", Context: result, Output: "three"})
	requireMessages(t, *got, `[{"role":"system","content":"be brief"},{"role":"user","content":"asked"},
		{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{}"}}]},
		{"role":"tool","content":"3","tool_call_id":"c1"},{"role":"assistant","content":"three"},{"role":"user","content":"and?"}]`)
}

func requireMessages(t *testing.T, request map[string]any, want string) {
	t.Helper()
	b, err := json.Marshal(request["messages"])
	require.NoError(t, err)
	require.JSONEq(t, want, string(b))
}
