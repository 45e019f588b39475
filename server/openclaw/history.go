package openclaw

import (
	"context"
	"fmt"
	"slices"

	"gateway/queue"
	"gateway/server/api"
)

const (
	maxHistoryBytes = 6 << 20 // of the text of a history
	historyPage     = 20      // turns that are read at once: each may have megabytes of text
)

// chatHistory returns the newest messages of the session, oldest first: at most limit, and no more than fit. The
// newest is always there.
func (c *socket) chatHistory(ctx context.Context, _ string, params api.Fields) (any, error) {
	var given string
	limit := 200
	if err := params.TakeMembers(api.Into("sessionKey", &given), api.Into("limit", &limit)); err != nil {
		return nil, err
	}
	key, agent, err := c.sessionKey(given, "")
	if err != nil {
		return nil, err
	}
	if limit < 1 || limit > api.MaxPage {
		return nil, badFrame(fmt.Sprintf("limit must be from 1 to %d. Try: without it", api.MaxPage))
	}
	messages, size := []map[string]any{}, 0
	page := queue.Filter{Session: key, Limit: min(historyPage, limit)}
	for full := false; !full; {
		turns, err := c.b.Queue.Turns(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, t := range turns { // newest first, and of each the answer first
			if t.Status == queue.Completed {
				size += len(t.Output)
				messages = append(messages, chatMessageOf("assistant", t.Output, *t.FinishedAt))
			}
			size += len(t.Input)
			messages = append(messages, chatMessageOf("user", t.Input, t.CreatedAt))
			if full = len(messages) >= limit || size > maxHistoryBytes; full {
				break
			}
			page.Before = t.ID
		}
		full = full || len(turns) < page.Limit
	}
	messages = messages[:min(len(messages), limit)]
	slices.Reverse(messages)
	told, _ := c.names(key, agent)
	return map[string]any{"sessionKey": told, "sessionId": key, "messages": messages}, nil
}
