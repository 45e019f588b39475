package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	openai "github.com/sashabaranov/go-openai"

	"gateway/internal/config"
	"gateway/internal/conversation"
	"gateway/queue"
)

const (
	// historyTurns is how much of its session an agent is told.
	historyTurns = 50
	// errorText is how much of an endpoint's error goes into the failure, in bytes.
	errorText = 1 << 10
)

// endpoint is an agent behind an OpenAI-compatible endpoint: streamed chat completions, the session as
// history.
type endpoint struct {
	client *openai.Client
	model  string
	system string
	key    string
}

func newOpenAI(a config.Agent) *endpoint {
	c := openai.DefaultConfig(a.APIKey)
	c.BaseURL = strings.TrimSuffix(a.BaseURL, "/")
	c.HTTPClient = &http.Client{} // the attempt's context bounds it
	return &endpoint{client: openai.NewClientWithConfig(c), model: a.Model, system: a.System, key: a.APIKey}
}

func (e *endpoint) run(ctx context.Context, w queue.Work) error {
	req, err := e.request(ctx, w)
	if err != nil {
		return err
	}
	stream, err := e.client.CreateChatCompletionStream(ctx, req)
	switch {
	case err != nil && temporary(err): // nothing of it has begun
		return queue.Temporary(e.explain(err), 0)
	case err != nil:
		return e.explain(err)
	}
	defer func() { _ = stream.Close() }()
	var got conversation.Answer
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return e.explain(err)
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content != "" {
				if err := w.Emit(choice.Delta.Content); err != nil {
					return err
				}
			}
			if err := addTo(&got, choice); err != nil {
				return err
			}
		}
		if chunk.Usage != nil {
			if got.Usage, err = json.Marshal(chunk.Usage); err != nil {
				return fmt.Errorf("reading the usage from the endpoint: %w", err)
			}
		}
	}
	if got.FinishReason == "" {
		return errors.New("the endpoint's stream ended before the answer was finished")
	}
	detail, err := json.Marshal(got)
	if err != nil {
		return fmt.Errorf("reading the end of the answer from the endpoint: %w", err)
	}
	return w.Describe(detail)
}

// maxToolCalls bounds the calls of one answer.
const maxToolCalls = 128

// addTo adds a piece of the stream to the answer. A tool call comes in fragments that belong to an index.
func addTo(a *conversation.Answer, choice openai.ChatCompletionStreamChoice) error {
	if choice.FinishReason != "" {
		a.FinishReason = string(choice.FinishReason)
	}
	for _, part := range choice.Delta.ToolCalls {
		at := len(a.ToolCalls)
		if part.Index != nil {
			at = *part.Index
		}
		if at < 0 || at >= maxToolCalls || at > len(a.ToolCalls) {
			return fmt.Errorf("the endpoint sent tool call %d after %d calls", at, len(a.ToolCalls))
		}
		if at == len(a.ToolCalls) {
			a.ToolCalls = append(a.ToolCalls, conversation.ToolCall{Type: string(openai.ToolTypeFunction)})
		}
		call := &a.ToolCalls[at]
		call.ID += part.ID
		call.Function.Name += part.Function.Name
		call.Function.Arguments += part.Function.Arguments
	}
	return nil
}

// temporary: the endpoint is away or overloaded.
func temporary(err error) bool {
	status := 0
	var api *openai.APIError
	var request *openai.RequestError
	switch {
	case errors.As(err, &api):
		status = api.HTTPStatusCode
	case errors.As(err, &request):
		status = request.HTTPStatusCode
	}
	return status == 0 || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// explain bounds an endpoint's words and keeps the key out of them.
func (e *endpoint) explain(err error) error {
	text := err.Error()
	if e.key != "" {
		text = strings.ReplaceAll(text, e.key, "(key)")
	}
	if len(text) > errorText {
		text = text[:errorText] + "…"
	}
	return fmt.Errorf("the endpoint of model %s: %s", e.model, strings.ToValidUTF8(text, "\uFFFD"))
}

// withParams begins a request with the client's sampling parameters.
func withParams(params map[string]json.RawMessage) (req openai.ChatCompletionRequest, err error) {
	var one string
	if stop, ok := params["stop"]; ok && json.Unmarshal(stop, &one) == nil { // a string is a list of one
		if params["stop"], err = json.Marshal([]string{one}); err != nil {
			return req, fmt.Errorf("parameter stop: %w", err)
		}
	}
	text, err := json.Marshal(params)
	if err != nil {
		return req, fmt.Errorf("parameters: %w", err)
	}
	if err := json.Unmarshal(text, &req); err != nil {
		return req, fmt.Errorf("parameters: %w", err)
	}
	// The client library leaves out a temperature of 0, which would mean the endpoint's default.
	if _, ok := params["temperature"]; ok && req.Temperature == 0 {
		req.Temperature = math.SmallestNonzeroFloat32
	}
	return req, nil
}
