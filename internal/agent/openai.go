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
	finished := false
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
			finished = finished || choice.FinishReason != ""
		}
	}
	if !finished {
		return errors.New("the endpoint's stream ended before the answer was finished")
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

// clientContext is the part of [queue.Turn.Context] that agents understand.
type clientContext struct {
	Messages []struct {
		Role, Content, Name string
	} `json:"messages"`
	Instructions string                     `json:"instructions"`
	Params       map[string]json.RawMessage `json:"params"`
}

// request is the conversation so far: what the client sent when it sent a whole one, else the turns of the
// session.
func (e *endpoint) request(ctx context.Context, w queue.Work) (openai.ChatCompletionRequest, error) {
	var c clientContext
	if len(w.Turn.Context) > 0 {
		if err := json.Unmarshal(w.Turn.Context, &c); err != nil {
			return openai.ChatCompletionRequest{}, fmt.Errorf("the turn's context cannot be read: %w", err)
		}
	}
	req, err := withParams(c.Params)
	if err != nil {
		return req, err
	}
	req.Model, req.Stream = e.model, true
	say := func(role, content, name string) {
		if content != "" {
			req.Messages = append(req.Messages, openai.ChatCompletionMessage{Role: role, Content: content, Name: name})
		}
	}
	say(openai.ChatMessageRoleSystem, e.system, "")
	say(openai.ChatMessageRoleSystem, c.Instructions, "")
	if len(c.Messages) > 0 {
		for _, m := range c.Messages {
			say(m.Role, m.Content, m.Name)
		}
		return req, nil
	}
	history, err := w.History(ctx, historyTurns)
	if err != nil {
		return req, fmt.Errorf("reading the session: %w", err)
	}
	for _, t := range history {
		say(openai.ChatMessageRoleUser, t.Input, "")
		say(openai.ChatMessageRoleAssistant, t.Output, "")
	}
	say(openai.ChatMessageRoleUser, w.Turn.Input, "")
	return req, nil
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
