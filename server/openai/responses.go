package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"gateway/internal/conversation"
	"gateway/queue"
	"gateway/server/api"
)

// responsesRequest is a request for a response that was understood.
type responsesRequest struct {
	submission
	stream bool
}

const (
	maxMetadata      = 16
	maxMetadataKey   = 64
	maxMetadataValue = 512
)

// parseResponses reads the body of POST /v1/responses. What it would have to ignore it refuses by name,
// except what changes nothing in the answer.
func parseResponses(body []byte) (responsesRequest, error) {
	q := responsesRequest{submission: submission{fresh: "resp-"}}
	f, err := api.ParseFields(body)
	if err != nil {
		return q, err
	}
	input, ok := f["input"]
	if !ok || string(input) == "null" {
		return q, api.Invalid("input", "missing_parameter", "input is missing. Try: \"input\": \"hello\"")
	}
	f.Drop("input", "safety_identifier", "prompt_cache_key", "service_tier", "stream_options")
	var messages []conversation.Message
	if json.Unmarshal(input, &q.input) != nil {
		if messages, q.input, err = parseMessages(input, "input", "input_text", "output_text", "text"); err != nil {
			return q, err
		}
	}
	if q.input == "" {
		return q, api.Invalid("input", "invalid_value", "input has no text. Try: \"input\": \"hello\"")
	}
	q.sent.Params, err = takeSampling(f, []string{"temperature", "top_p", "max_output_tokens"},
		map[string]string{"max_output_tokens": "max_completion_tokens"})
	if err != nil {
		return q, err
	}
	tools, err := takeTools(f, &q.sent.Params, true)
	if err != nil {
		return q, err
	}
	q.converse(joinCalls(messages), tools)
	store, truncation, user := true, "disabled", ""
	var conversation json.RawMessage
	var text struct {
		Format struct {
			Type string `json:"type"`
		} `json:"format"`
	}
	err = f.TakeMembers(api.Into("model", &q.model), api.Into("stream", &q.stream), api.Into("store", &store),
		api.Into("truncation", &truncation), api.Into("user", &user), api.Into("conversation", &conversation),
		api.Into("text", &text), api.Into("instructions", &q.sent.Instructions),
		api.Into("background", &q.sent.Background), api.Into("metadata", &q.sent.Metadata),
		api.Into("previous_response_id", &q.sent.PreviousResponseID))
	if err != nil {
		return q, err
	}
	switch {
	case !store:
		return q, api.Unsupported("store", "every turn is stored for turns.retention. Try: without it")
	case truncation != "disabled":
		return q, api.Unsupported("truncation", "the gateway does not truncate. Try: without it")
	case text.Format.Type != "" && text.Format.Type != "text":
		return q, api.Unsupported("text.format", "answers are plain text. Try: without it")
	case !api.Printable(user, api.MaxName):
		return q, api.Invalid("user", "invalid_value", "user names the session; it must be at most %d printable characters. Try: a shorter one, without line breaks", api.MaxName)
	case !api.Printable(q.sent.PreviousResponseID, api.MaxID):
		return q, api.Invalid("previous_response_id", "invalid_value", "previous_response_id is not the id of a response. Try: the id that POST /v1/responses answered with")
	}
	if err := checkMetadata(q.sent.Metadata); err != nil {
		return q, err
	}
	if q.session, err = conversationName(conversation); err != nil {
		return q, err
	}
	q.sent.Append = len(q.sent.Messages) > 0 && (q.session != "" || q.sent.PreviousResponseID != "")
	switch {
	case q.session != "" && q.sent.PreviousResponseID != "":
		return q, api.Invalid("previous_response_id", "invalid_value", "previous_response_id and conversation exclude each other. Try: only one of them")
	case q.session == "" && q.sent.PreviousResponseID == "":
		q.session = user
	}
	return q, f.RefuseRest("")
}

func checkMetadata(pairs map[string]string) error {
	if len(pairs) > maxMetadata {
		return api.Invalid("metadata", "invalid_value", "metadata has more than %d pairs. Try: fewer", maxMetadata)
	}
	for key, value := range pairs {
		if key == "" || len(key) > maxMetadataKey || len(value) > maxMetadataValue {
			return api.Invalid("metadata", "invalid_value", "metadata: a key has 1 to %d bytes and a value at most %d. Try: shorter ones", maxMetadataKey, maxMetadataValue)
		}
	}
	return nil
}

// conversationName reads a conversation: its id, or an object that has one.
func conversationName(raw json.RawMessage) (string, error) {
	if len(raw) == 0 {
		return "", nil
	}
	var name string
	if json.Unmarshal(raw, &name) != nil {
		var object struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(raw, &object) != nil || object.ID == "" {
			return "", api.Invalid("conversation", "invalid_type", "conversation is neither an id nor an object that has one. Try: \"conversation\": \"NAME\"")
		}
		name = object.ID
	}
	if !api.Printable(name, api.MaxName) {
		return "", api.Invalid("conversation", "invalid_value", "conversation names the session; it must be at most %d printable characters. Try: a shorter one, without line breaks", api.MaxName)
	}
	return name, nil
}

func (o *Endpoints) CreateResponse(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	body, err := api.ReadObject(w, r, b.BodyLimit())
	if err != nil {
		return err
	}
	q, err := parseResponses(body)
	if err != nil {
		return err
	}
	if id := q.sent.PreviousResponseID; id != "" {
		previous, err := b.Queue.Turn(r.Context(), id)
		if errors.Is(err, queue.ErrNotFound) {
			return api.NotFound("previous_response_not_found", "previous_response_id", "there is no response %q; finished responses are deleted after turns.retention. Try: without previous_response_id, or with another", api.Clip(id))
		}
		if err != nil {
			return err
		}
		q.session = previous.Session
	}
	t, err := accept(w, r, b, q.submission)
	if err != nil {
		return err
	}
	switch {
	case q.stream:
		return o.streamResponse(w, r, b, t, -1)
	case !q.sent.Background:
		if t, err = b.Queue.Wait(r.Context(), t.ID); err != nil {
			return err
		}
	}
	return api.Reply(w, http.StatusOK, responseOf(t))
}

// ShowResponse returns the response, or its events after starting_after as a stream. OpenAI's Go client
// asks for the stream in the body of the GET, others in the query.
func (o *Endpoints) ShowResponse(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.TurnOf(r, b)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	after, err := api.QueryInt(query, "starting_after", 0, math.MaxInt64, -1)
	if err != nil {
		return err
	}
	var stream bool
	if given := query.Get("stream"); given != "" {
		if stream, err = strconv.ParseBool(given); err != nil {
			return api.Invalid("stream", "invalid_value", "stream is neither true nor false. Try: stream=true")
		}
	}
	body, err := api.ReadBody(w, r, api.MaxSmallBody)
	if err != nil {
		return err
	}
	if len(body) > 0 {
		f, err := api.ParseFields(body)
		if err != nil {
			return err
		}
		if err := f.TakeMember("stream", &stream); err != nil {
			return err
		}
	}
	if stream {
		return o.streamResponse(w, r, b, t, after)
	}
	if after >= 0 {
		return api.Invalid("starting_after", "invalid_value", "starting_after is only possible together with stream=true. Try: both, or neither")
	}
	return api.Reply(w, http.StatusOK, responseOf(t))
}

func (o *Endpoints) CancelResponse(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.CancelTurn(r, b)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, responseOf(t))
}

// DeleteResponse forgets a response that has ended.
func (o *Endpoints) DeleteResponse(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.DeleteTurn(r, b)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{t.ID, "response", true})
}

// The documents of responses. Usage is what the agent said, null when it said nothing.
type (
	response struct {
		ID                 string            `json:"id"`
		Object             string            `json:"object"`
		CreatedAt          int64             `json:"created_at"`
		CompletedAt        *int64            `json:"completed_at"`
		Status             string            `json:"status"`
		Background         bool              `json:"background"`
		Error              *responseError    `json:"error"`
		IncompleteDetails  *incompleteReason `json:"incomplete_details"`
		Instructions       *string           `json:"instructions"`
		MaxOutputTokens    json.RawMessage   `json:"max_output_tokens"`
		Model              string            `json:"model"`
		Output             []any             `json:"output"` // outputItem and callItem
		ParallelToolCalls  bool              `json:"parallel_tool_calls"`
		PreviousResponseID *string           `json:"previous_response_id"`
		Conversation       conversationID    `json:"conversation"`
		Store              bool              `json:"store"`
		Temperature        json.RawMessage   `json:"temperature"`
		TopP               json.RawMessage   `json:"top_p"`
		ToolChoice         any               `json:"tool_choice"`
		Tools              []flatTool        `json:"tools"`
		Truncation         string            `json:"truncation"`
		Usage              *responseUsage    `json:"usage"`
		Metadata           map[string]string `json:"metadata"`
	}
	responseError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	incompleteReason struct {
		Reason string `json:"reason"`
	}
	conversationID struct {
		ID string `json:"id"`
	}
	outputItem struct {
		ID      string       `json:"id"`
		Type    string       `json:"type"`
		Status  string       `json:"status"`
		Role    string       `json:"role"`
		Content []outputText `json:"content"`
	}
	callItem struct {
		ID        string `json:"id"`
		Type      string `json:"type"`
		Status    string `json:"status"`
		CallID    string `json:"call_id"`
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	}
	responseUsage struct {
		InputTokens  int `json:"input_tokens"`
		InputDetails struct {
			CachedTokens int `json:"cached_tokens"`
		} `json:"input_tokens_details"`
		OutputTokens  int `json:"output_tokens"`
		OutputDetails struct {
			ReasoningTokens int `json:"reasoning_tokens"`
		} `json:"output_tokens_details"`
		TotalTokens int `json:"total_tokens"`
	}
	outputText struct {
		Type        string     `json:"type"`
		Text        string     `json:"text"`
		Annotations []struct{} `json:"annotations"`
		Logprobs    []struct{} `json:"logprobs"`
	}
)

// responseOf is the turn as a response. A cancelled one says so in its status; as a stream has no event of
// that name it ends with response.incomplete, and incomplete_details says why in both.
func responseOf(t queue.Turn) response {
	kept, _ := conversation.SentWith(t) // what another writer of the store left there is not echoed
	doc := response{
		ID: t.ID, Object: "response", CreatedAt: t.CreatedAt.Unix(), Status: string(t.Status),
		Background: kept.Background, Model: t.Agent, Output: []any{}, Conversation: conversationID{t.Session},
		Store: true, Tools: flatTools(kept.Params["tools"]), Truncation: "disabled", Metadata: kept.Metadata,
		MaxOutputTokens: orNull(kept.Params["max_completion_tokens"]),
		Temperature:     orNull(kept.Params["temperature"]), TopP: orNull(kept.Params["top_p"]),
	}
	doc.ToolChoice = flatChoice(kept.Params["tool_choice"], len(doc.Tools))
	doc.ParallelToolCalls = len(doc.Tools) > 0 && string(kept.Params["parallel_tool_calls"]) != "false"
	if doc.Metadata == nil {
		doc.Metadata = map[string]string{}
	}
	if kept.Instructions != "" {
		doc.Instructions = &kept.Instructions
	}
	if kept.PreviousResponseID != "" {
		doc.PreviousResponseID = &kept.PreviousResponseID
	}
	switch t.Status {
	case queue.Running:
		doc.Status = "in_progress"
	case queue.Completed:
		if t.FinishedAt != nil {
			at := t.FinishedAt.Unix()
			doc.CompletedAt = &at
		}
		detail := answerOf(t.Detail)
		doc.Output, doc.Usage = outputOf(t, detail), usageOf(detail).inResponse()
		if why := incompleteOf(detail); why != "" {
			doc.Status, doc.IncompleteDetails = "incomplete", &incompleteReason{why}
		}
	case queue.Failed:
		doc.Error = &responseError{Code: api.TypeServer, Message: t.Error}
	case queue.Cancelled:
		doc.IncompleteDetails = &incompleteReason{"cancelled"}
	case queue.Queued:
	}
	return doc
}

// outputOf is what a completed turn answered: its text, unless it is empty beside calls, and the calls.
func outputOf(t queue.Turn, detail conversation.Answer) (items []any) {
	if t.Output != "" || len(detail.ToolCalls) == 0 {
		items = append(items, itemOf(t, "completed", textPart(t.Output)))
	}
	for i := range detail.ToolCalls {
		items = append(items, callOf(t, detail, i))
	}
	return items
}

func callOf(t queue.Turn, detail conversation.Answer, i int) callItem {
	call := detail.ToolCalls[i]
	return callItem{
		ID: fmt.Sprintf("fc_%s_%d", t.ID, i), Type: "function_call", Status: "completed",
		CallID: call.ID, Name: call.Function.Name, Arguments: call.Function.Arguments,
	}
}

// inResponse is the usage as responses have it.
func (u *chatUsage) inResponse() *responseUsage {
	if u == nil {
		return nil
	}
	r := &responseUsage{InputTokens: u.PromptTokens, OutputTokens: u.CompletionTokens, TotalTokens: u.TotalTokens}
	if u.PromptDetails != nil {
		r.InputDetails.CachedTokens = u.PromptDetails.CachedTokens
	}
	if u.CompletionDetails != nil {
		r.OutputDetails.ReasoningTokens = u.CompletionDetails.ReasoningTokens
	}
	return r
}

func itemOf(t queue.Turn, status string, content ...outputText) outputItem {
	if content == nil {
		content = []outputText{}
	}
	return outputItem{ID: itemID(t), Type: "message", Status: status, Role: "assistant", Content: content}
}

// itemID names the text of the turn's latest attempt. The attempt's number would not do: one that the
// gateway interrupted is given back, so two texts of a stream would have one name.
func itemID(t queue.Turn) string {
	if t.StartedAt == nil {
		return "msg_" + t.ID
	}
	return fmt.Sprintf("msg_%s_%d", t.ID, t.StartedAt.UnixMilli())
}

func textPart(text string) outputText {
	return outputText{Type: "output_text", Text: text, Annotations: []struct{}{}, Logprobs: []struct{}{}}
}

func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}
