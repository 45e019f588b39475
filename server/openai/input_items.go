package openai

import (
	"fmt"
	"net/http"
	"slices"

	"gateway/internal/conversation"
	"gateway/server/api"
)

// The documents of a response's input.
type (
	inputItem struct {
		ID      string      `json:"id"`
		Type    string      `json:"type"`
		Status  string      `json:"status"`
		Role    string      `json:"role"`
		Content []inputText `json:"content"`
	}
	inputText struct {
		Type string `json:"type"` // output_text for what an assistant said
		Text string `json:"text"`
	}
	callOutputItem struct {
		ID     string `json:"id"`
		Type   string `json:"type"`
		Status string `json:"status"`
		CallID string `json:"call_id"`
		Output string `json:"output"`
	}
)

// ListInputItems returns what the client sent as the response's input, the newest first unless order=asc, in
// pages as OpenAI's clients turn them.
func (o *Endpoints) ListInputItems(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.TurnOf(r, b)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	limit, err := api.QueryInt(query, "limit", 1, 100, 20)
	if err != nil {
		return err
	}
	sent, _ := conversation.SentWith(t) // what another writer of the store left there is not shown
	if len(sent.Messages) == 0 {
		sent.Messages = []conversation.Message{{Role: "user", Content: t.Input}}
	}
	items, ids := inputItems(t.ID, sent.Messages)
	switch order := query.Get("order"); order {
	case "", "desc":
		slices.Reverse(items)
		slices.Reverse(ids)
	case "asc":
	default:
		return api.Invalid("order", "invalid_value", "order is %q. Try: asc or desc", api.Clip(order))
	}
	if after := query.Get("after"); after != "" {
		at := slices.Index(ids, after)
		if at < 0 {
			return api.Invalid("after", "invalid_value", "after is not the id of one of the items. Try: the last_id of the page before")
		}
		items, ids = items[at+1:], ids[at+1:]
	}
	page := struct {
		Object  string  `json:"object"`
		Data    []any   `json:"data"`
		FirstID *string `json:"first_id"`
		LastID  *string `json:"last_id"`
		HasMore bool    `json:"has_more"`
	}{Object: "list", Data: items, HasMore: len(items) > int(limit)}
	if page.HasMore {
		page.Data, ids = items[:limit], ids[:limit]
	}
	if len(ids) > 0 {
		page.FirstID, page.LastID = &ids[0], &ids[len(ids)-1]
	}
	return api.Reply(w, http.StatusOK, page)
}

// inputItems are the messages as items of responses, with their ids.
func inputItems(turn string, messages []conversation.Message) (items []any, ids []string) {
	items = []any{}
	add := func(kind string, item func(id string) any) {
		id := fmt.Sprintf("%s_%s_in_%d", kind, turn, len(ids))
		items, ids = append(items, item(id)), append(ids, id)
	}
	for _, m := range messages {
		if m.Role == "tool" {
			add("fco", func(id string) any {
				return callOutputItem{id, "function_call_output", "completed", m.ToolCallID, m.Content}
			})
			continue
		}
		if m.Content != "" || len(m.ToolCalls) == 0 {
			kind := "input_text"
			if m.Role == "assistant" {
				kind = "output_text"
			}
			add("msg", func(id string) any {
				return inputItem{id, "message", "completed", m.Role, []inputText{{kind, m.Content}}}
			})
		}
		for _, c := range m.ToolCalls {
			add("fc", func(id string) any {
				return callItem{id, "function_call", "completed", c.ID, c.Function.Name, c.Function.Arguments}
			})
		}
	}
	return items, ids
}
