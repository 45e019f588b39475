package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"gateway/fsm"
	"gateway/queue"
	"gateway/server"
	"gateway/server/api"
)

// Snapshot is the answer of GET /v1/lifecycle.
type Snapshot struct {
	server.StatusDocument
	History []fsm.Hop `json:"history"` // oldest first
}

// Snapshot returns the state and the history.
func (c *Client) Snapshot(ctx context.Context) (s Snapshot, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/lifecycle", nil, &s, nil)
}

// Alive returns an error when no gateway answers. Each call opens a new connection.
func (c *Client) Alive(ctx context.Context) error {
	c.http.CloseIdleConnections()
	return c.call(ctx, http.MethodGet, "/healthz", nil, nil, nil)
}

// Change is a request to the lifecycle. All fields may be empty.
type Change struct {
	Reason string `json:"reason,omitempty"`
	Turn   string `json:"turn,omitempty"`          // the turn that requests the restart; the drain does not wait for it
	Drain  string `json:"drain_timeout,omitempty"` // how long a restart waits for turns, as time.ParseDuration reads it
}

// Request requests a restart, stop or resume, and returns the decision.
func (c *Client) Request(ctx context.Context, event fsm.Event, change Change) (d fsm.Decision, err error) {
	return d, c.call(ctx, http.MethodPost, "/v1/lifecycle/"+string(event), change, &d, nil)
}

// AuthorizeSignal authorises one restart by SIGUSR1 for a few seconds.
func (c *Client) AuthorizeSignal(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/lifecycle/restart", map[string]bool{"authorize_signal": true}, nil, nil)
}

// CheckSuccessor returns whether a restart would work. unknown is why the gateway does not answer: it is older than the
// check, or the token does not permit it.
func (c *Client) CheckSuccessor(ctx context.Context) (found api.Successor, unknown string, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/lifecycle/check", nil, &found, nil)
	var refused *APIError
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return found, "the running gateway is too old for this check", nil
	case errors.As(err, &refused) && refused.Status == http.StatusForbidden:
		return found, refused.Error(), nil
	}
	return found, "", err
}

// TurnList is the answer of GET /v1/turns, newest first.
type TurnList struct {
	Turns   []queue.Turn `json:"turns"`
	HasMore bool         `json:"has_more"`
}

// Turns lists turns. The filter is that of GET /v1/turns.
func (c *Client) Turns(ctx context.Context, filter url.Values) (list TurnList, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/turns?"+filter.Encode(), nil, &list, nil)
}

// RunningTurns lists the running turns.
func (c *Client) RunningTurns(ctx context.Context) ([]queue.Turn, error) {
	list, err := c.Turns(ctx, url.Values{"status": {string(queue.Running)}, "limit": {"1000"}})
	return list.Turns, err
}

// Turn returns a turn.
func (c *Client) Turn(ctx context.Context, id string) (queue.Turn, error) {
	return c.turn(ctx, http.MethodGet, id, "")
}

// CancelTurn cancels a queued or running turn. A turn that has ended is returned unchanged.
func (c *Client) CancelTurn(ctx context.Context, id string) (queue.Turn, error) {
	return c.turn(ctx, http.MethodPost, id, "/cancel")
}

// RetryTurn puts a turn that failed or was cancelled back at the head of its session.
func (c *Client) RetryTurn(ctx context.Context, id string) (queue.Turn, error) {
	return c.turn(ctx, http.MethodPost, id, "/retry")
}

// DeleteTurn deletes a turn that has ended, and returns the deleted turn.
func (c *Client) DeleteTurn(ctx context.Context, id string) (queue.Turn, error) {
	return c.turn(ctx, http.MethodDelete, id, "")
}

func (c *Client) turn(ctx context.Context, method, id, action string) (t queue.Turn, err error) {
	return t, c.call(ctx, method, "/v1/turns/"+url.PathEscape(id)+action, nil, &t, nil)
}

// LaneList is the answer of GET /v1/lanes.
type LaneList struct {
	Lanes []queue.Lane `json:"lanes"`
}

// Lanes lists the lanes.
func (c *Client) Lanes(ctx context.Context) (list LaneList, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/lanes", nil, &list, nil)
}

// PauseLane pauses or resumes a lane.
func (c *Client) PauseLane(ctx context.Context, name string, paused bool) (l queue.Lane, err error) {
	return l, c.call(ctx, http.MethodPatch, "/v1/lanes/"+url.PathEscape(name), map[string]bool{"paused": paused}, &l, nil)
}

// SessionList is the answer of GET /v1/sessions, the most recently used first.
type SessionList struct {
	Sessions []queue.Session `json:"sessions"`
}

// Sessions lists at most limit sessions.
func (c *Client) Sessions(ctx context.Context, limit int) (list SessionList, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/sessions?limit="+strconv.Itoa(limit), nil, &list, nil)
}

// SessionChange is a change to a session; nil leaves a field unchanged.
type SessionChange struct {
	Paused *bool   `json:"paused,omitempty"`
	Mode   *string `json:"mode,omitempty"` // empty for the agent's mode
}

// ChangeSession changes a session and returns it.
func (c *Client) ChangeSession(ctx context.Context, name string, change SessionChange) (s queue.Session, err error) {
	return s, c.call(ctx, http.MethodPatch, "/v1/sessions/"+url.PathEscape(name), change, &s, nil)
}

// Agents lists the names of the agents.
func (c *Client) Agents(ctx context.Context) (names []string, err error) {
	var doc struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	err = c.call(ctx, http.MethodGet, "/v1/models", nil, &doc, nil)
	for _, a := range doc.Data {
		names = append(names, a.ID)
	}
	return names, err
}
