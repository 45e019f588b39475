package openclaw

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"time"

	"gateway/server/api"
)

// identity names the gateway, so that a client knows it again.
func (c *socket) identity(_ context.Context, _ string, params api.Fields) (any, error) {
	if err := params.RefuseRest(""); err != nil {
		return nil, err
	}
	if c.b.Identity == nil {
		return nil, &frameError{Code: codeUnavailable, Message: "this gateway has no identity"}
	}
	key, err := c.b.Identity()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(key)
	return map[string]any{"deviceId": hex.EncodeToString(id[:]), "publicKey": base64.RawURLEncoding.EncodeToString(key)}, nil
}

func (c *socket) channelsStatus(_ context.Context, _ string, params api.Fields) (any, error) {
	params.Drop("probe", "timeoutMs") // there is nobody to ask
	var channel string
	if err := params.TakeMembers(api.Into("channel", &channel)); err != nil {
		return nil, err
	}
	if channel != "" {
		return nil, badFrame("unknown channel: " + api.Clip(channel) + ". Try: without it; there are no channels here")
	}
	none := map[string]any{}
	return map[string]any{
		"ts": time.Now().UnixMilli(), "channelOrder": []string{}, "channelLabels": none, "channels": none,
		"channelAccounts": none, "channelDefaultAccountId": none,
	}, nil
}

func (c *socket) listCron(_ context.Context, _ string, params api.Fields) (any, error) {
	limit, offset := 50, 0
	if err := params.TakeMembers(api.Into("limit", &limit), api.Into("offset", &offset)); err != nil {
		return nil, err
	}
	return map[string]any{
		"jobs": []any{}, "total": 0, "offset": offset, "limit": limit, "hasMore": false, "nextOffset": nil, "deliveryPreviews": map[string]any{},
		"snapshotRevision": "none", // the list never changes
	}, nil
}

func (c *socket) listNodes(context.Context, string, api.Fields) (any, error) {
	return map[string]any{"ts": time.Now().UnixMilli(), "nodes": []any{}}, nil
}
