package openclaw

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"gateway/queue"
	"gateway/server/api"
)

const (
	// censusAge is how old the census may be that clients are told: taking it reads the store.
	censusAge  = time.Second
	censusTime = time.Second
	// healthInterval is how often all clients are told how the gateway is. It is less than two ticks, which bring it.
	healthInterval = 50 * time.Second
	// maxRecent is how many sessions status names.
	maxRecent = 5
)

// census is who is in a generation's sessions, looked up at most once a censusAge for all who ask.
type census struct {
	mu       sync.Mutex
	of       *api.Backend
	at       time.Time
	sessions []queue.Session
	err      error
}

// newest returns the most recently used sessions, newest first.
func (k *census) newest(ctx context.Context, b *api.Backend) ([]queue.Session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == b && k.err == nil && time.Since(k.at) < censusAge {
		return k.sessions, nil
	}
	ctx, cancel := context.WithTimeout(ctx, censusTime)
	defer cancel()
	k.of, k.at = b, time.Now()
	k.sessions, k.err = b.Queue.Sessions(ctx, api.MaxPage)
	return k.sessions, k.err
}

// recent counts sessions, up to the newest maxPage, and names the newest of them.
func recent(sessions []queue.Session) map[string]any {
	newest := []map[string]any{}
	for _, one := range sessions[:min(len(sessions), maxRecent)] {
		newest = append(newest, map[string]any{
			"key": one.Name, "updatedAt": one.UpdatedAt.UnixMilli(), "age": max(time.Since(one.UpdatedAt).Milliseconds(), 0),
		})
	}
	return map[string]any{"path": "", "count": len(sessions), "recent": newest}
}

// ofAgent are the sessions whose key names the agent.
func ofAgent(sessions []queue.Session, name string) []queue.Session {
	return slices.DeleteFunc(slices.Clone(sessions), func(one queue.Session) bool {
		return !strings.HasPrefix(one.Name, "agent:"+name+":")
	})
}

// health is cheap, because every client is greeted with it: the sessions are left to status and sessions.list.
func (h *Hub) health(b *api.Backend) map[string]any {
	began := time.Now()
	agents := []map[string]any{}
	none := map[string]any{"path": "", "count": 0, "recent": []any{}} // they are in no file that a client could read
	silent := map[string]any{"enabled": false, "every": "", "everyMs": nil, "prompt": "", "target": "none", "ackMaxChars": 0}
	for _, name := range b.Agents {
		agents = append(agents, map[string]any{"agentId": name, "isDefault": name == b.DefaultAgent, "heartbeat": silent, "sessions": none})
	}
	return map[string]any{
		"ok": !b.Queue.Stats().Damaged, "ts": began.UnixMilli(), "durationMs": time.Since(began).Milliseconds(),
		"defaultAgentId": b.DefaultAgent, "agents": agents, "sessions": none,
		"channels": map[string]any{}, "channelOrder": []string{}, "channelLabels": map[string]string{},
	}
}

// tellHealth tells all clients how the gateway is, unless they were told a moment ago.
func (h *Hub) tellHealth(b *api.Backend) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || time.Since(h.toldAt) < healthInterval {
		return
	}
	h.toldAt = time.Now()
	h.follows.Go(func() {
		if len(h.connected()) > 0 {
			h.tell("health", h.health(b))
		}
	})
}

func (c *socket) status(ctx context.Context, _ string, _ api.Fields) (any, error) {
	listed, err := c.hub.census.newest(ctx, c.b)
	if err != nil {
		return nil, err
	}
	byAgent := []map[string]any{}
	for _, name := range c.b.Agents {
		own := recent(ofAgent(listed, name))
		own["agentId"] = name
		byAgent = append(byAgent, own)
	}
	sessions := recent(listed)
	sessions["byAgent"] = byAgent
	st := c.b.Queue.Stats()
	return map[string]any{
		"runtimeVersion": c.hub.opts.Version, "state": c.hub.opts.Lifecycle.Snapshot().State,
		"tasks": map[string]any{
			"total": st.Running + st.Queued, "active": st.Running, "byStatus": map[string]int{"running": st.Running, "queued": st.Queued},
		},
		"sessions": sessions, "channelSummary": []any{}, "queuedSystemEvents": []any{},
	}, nil
}
