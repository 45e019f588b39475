package server

import (
	"net/http"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"
)

func TestAChatCallsAToolAndGoesOnWithWhatItReturned(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	params := openai.ChatCompletionNewParams{
		Model:    "echo",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("call")},
		Tools: []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
			Name: "add", Parameters: shared.FunctionParameters{"type": "object"},
		})},
	}
	answer, err := client.Chat.Completions.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, "tool_calls", answer.Choices[0].FinishReason)
	require.False(t, answer.Choices[0].Message.JSON.Content.Valid(), "null beside calls")
	call := answer.Choices[0].Message.ToolCalls[0]
	require.Equal(t, []string{"c1", "add", `{"a":1}`}, []string{call.ID, call.Function.Name, call.Function.Arguments})
	require.Equal(t, int64(10), answer.Usage.TotalTokens)
	require.Equal(t, int64(2), answer.Usage.PromptTokensDetails.CachedTokens)

	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	var whole openai.ChatCompletionAccumulator
	for stream.Next() {
		require.True(t, whole.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "tool_calls", whole.Choices[0].FinishReason)
	require.Equal(t, `{"a":1}`, whole.Choices[0].Message.ToolCalls[0].Function.Arguments)
	require.Equal(t, int64(10), whole.Usage.TotalTokens)

	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{}
	params.Messages = append(params.Messages, answer.Choices[0].Message.ToParam(), openai.ToolMessage("it is 3", "c1"))
	answer, err = client.Chat.Completions.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, "it is 3", answer.Choices[0].Message.Content)
	require.Equal(t, "stop", answer.Choices[0].FinishReason)
}

func TestAResponseCallsAToolAndGoesOnWithWhatItReturned(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	tools := []responses.ToolUnionParam{responses.ToolParamOfFunction("add", map[string]any{"type": "object"}, true)}
	params := responses.ResponseNewParams{
		Model: "echo", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("call")}, Tools: tools,
	}
	first, err := client.Responses.New(t.Context(), params)
	require.NoError(t, err)
	require.Len(t, first.Output, 1)
	call := first.Output[0].AsFunctionCall()
	require.Equal(t, []string{"c1", "add", `{"a":1}`}, []string{call.CallID, call.Name, call.Arguments})
	require.Equal(t, int64(7), first.Usage.InputTokens)
	require.Equal(t, int64(2), first.Usage.InputTokensDetails.CachedTokens)
	require.Equal(t, "add", first.Tools[0].Name)
	require.Equal(t, "auto", string(first.ToolChoice.OfToolChoiceMode))

	var kinds []string
	stream := client.Responses.NewStreaming(t.Context(), params)
	for stream.Next() {
		kinds = append(kinds, stream.Current().Type)
	}
	require.NoError(t, stream.Err())
	require.Equal(t, []string{
		"response.created", "response.in_progress", "response.output_item.added", "response.function_call_arguments.delta",
		"response.function_call_arguments.done", "response.output_item.done", "response.completed",
	}, kinds)

	second, err := client.Responses.New(t.Context(), responses.ResponseNewParams{
		Model: "echo", PreviousResponseID: openai.String(first.ID), Tools: tools,
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
			{OfFunctionCallOutput: &responses.ResponseInputItemFunctionCallOutputParam{
				CallID: openai.String("c1"),
				Output: responses.ResponseInputItemFunctionCallOutputOutputUnionParam{OfString: openai.String("it is 3")},
			}},
		}},
	})
	require.NoError(t, err)
	require.Equal(t, "it is 3", second.OutputText())
	require.Equal(t, first.Conversation.ID, second.Conversation.ID)

	items := client.Responses.InputItems.ListAutoPaging(t.Context(), second.ID, responses.InputItemListParams{})
	require.True(t, items.Next())
	require.Equal(t, "function_call_output", items.Current().Type)
	require.False(t, items.Next())
	require.NoError(t, items.Err())
}

func TestToolsAreRefusedWhereNobodyCanCallThem(t *testing.T) {
	g := newGateway(t)
	for _, body := range []string{
		`{"model":"other","input":"x","tools":[{"type":"function","name":"f"}]}`,
		`{"model":"other","input":[{"type":"function_call_output","call_id":"c","output":"x"}]}`,
	} {
		status, _, answer := g.do("POST", "/v1/responses", body)
		require.Equal(t, http.StatusBadRequest, status)
		require.Contains(t, answer, "other")
		require.Contains(t, answer, "openai")
	}
}

func TestInputItemsComeInPages(t *testing.T) {
	g := newGateway(t)
	_, header, _ := g.do("POST", "/v1/responses", `{"input":[{"role":"system","content":"brief"},{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}`)
	id := header.Get("X-Turn-Id")
	client := g.client()
	var got []string
	pages := client.Responses.InputItems.ListAutoPaging(t.Context(), id, responses.InputItemListParams{
		Limit: openai.Int(2), Order: responses.InputItemListParamsOrderAsc,
	})
	for pages.Next() {
		got = append(got, pages.Current().Role)
	}
	require.NoError(t, pages.Err())
	require.Equal(t, []string{"system", "assistant", "user"}, got)
	_, _, body := g.do("GET", "/v1/responses/"+id+"/input_items?limit=1", "")
	require.Contains(t, body, `"role":"user"`, "the newest first")
	for _, query := range []string{"?order=up", "?after=nothing", "?limit=0"} {
		status, _, body := g.do("GET", "/v1/responses/"+id+"/input_items"+query, "")
		require.Equal(t, http.StatusBadRequest, status)
		require.Contains(t, body, "Try: ")
	}
}

func TestAResponseThatHasEndedCanBeDeleted(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	id := g.ask("hello", "a")
	require.NoError(t, client.Responses.Delete(t.Context(), id))
	_, err := client.Responses.Get(t.Context(), id, responses.ResponseGetParams{})
	var refused *openai.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusNotFound, refused.StatusCode)

	_, header, _ := g.do("POST", "/v1/responses", `{"input":"block","background":true}`)
	id = header.Get("X-Turn-Id")
	err = client.Responses.Delete(t.Context(), id)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusConflict, refused.StatusCode)
	close(g.agent.Release)
	g.ended(id)
}
