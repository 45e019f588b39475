package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// websocket sends each turn as a chat over one connection. When that is closed with "service restart" it connects
// again and asks for the same run: its key makes no second one.
func (c *client) websocket(ctx context.Context) {
	var s *socket
	defer func() {
		if s != nil {
			_ = s.ws.CloseNow()
		}
	}()
turns:
	for ctx.Err() == nil {
		began := time.Now()
		tag := fmt.Sprintf("%s-%d", c.name, c.sent)
		c.sent++
		for attempt := 0; ; attempt++ {
			var err error
			if s == nil {
				s, err = c.openSocket()
			}
			if err == nil {
				err = s.chat(c.agent, c.name, tag)
			}
			if err == nil {
				break
			}
			if s != nil {
				_ = s.ws.CloseNow()
				s = nil
			}
			told := websocket.CloseStatus(err) == websocket.StatusServiceRestart || websocket.CloseStatus(err) == websocket.StatusTryAgainLater
			if !told || attempt > 100 || time.Since(began) > patience {
				c.t.failure(err)
				pause(ctx, time.Millisecond)
				c.rests(ctx)
				continue turns
			}
			c.t.comeBack()
		}
		c.t.answer(time.Since(began))
		c.rests(ctx)
	}
}

// socket is one connection.
type socket struct {
	ws  *websocket.Conn
	seq int64
	t   *tally
}

// socketFrame is the part of a frame that is looked at.
type socketFrame struct {
	Type, ID, Event string
	OK              bool
	Seq             int64
	Error           struct{ Code, Message string }
	Payload         struct {
		RunID, State, Status string
		Message              struct{ Content []struct{ Text string } }
	}
}

func (c *client) openSocket() (*socket, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+c.address+"/", nil) //nolint:bodyclose // Dial has read it
	if err != nil {
		return nil, err
	}
	s := &socket{ws: ws, t: c.t}
	_, err = s.read()
	if err == nil {
		err = s.call("connect", map[string]any{
			"minProtocol": 4, "maxProtocol": 4, "client": map[string]any{"id": "certify", "version": "1", "platform": "any", "mode": "test"},
		})
	}
	if err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	return s, nil
}

func (s *socket) read() (f socketFrame, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := s.ws.Read(ctx)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil && f.Type == "" {
		return f, err // payloads of other shapes are passed over
	}
	if f.Seq != 0 {
		switch {
		case f.Seq <= s.seq:
			s.t.lose(doubled, fmt.Sprintf("event %d after %d of a connection", f.Seq, s.seq))
		case f.Seq > s.seq+1:
			s.t.lose(missed, fmt.Sprintf("event %d after %d of a connection", f.Seq, s.seq))
		}
		s.seq = f.Seq
	}
	return f, nil
}

// refusal is a response that says no.
type refusal struct{ method, code, message string }

func (r *refusal) Error() string {
	return fmt.Sprintf("%s was refused: %s %s", r.method, r.code, r.message)
}

// call returns once the request was answered.
func (s *socket) call(method string, params any) error {
	text, err := json.Marshal(map[string]any{"type": "req", "id": method, "method": method, "params": params})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.ws.Write(ctx, websocket.MessageText, text); err != nil {
		return err
	}
	for {
		f, err := s.read()
		switch {
		case err != nil:
			return err
		case f.Type == "res" && f.ID == method && f.OK:
			return nil
		case f.Type == "res" && f.ID == method && method == "connect":
			_, err := s.read() // how it is closed says why
			return errors.Join(&refusal{method, f.Error.Code, f.Error.Message}, err)
		case f.Type == "res" && f.ID == method:
			return &refusal{method, f.Error.Code, f.Error.Message}
		}
	}
}

// chat has the turn answered. Its answer may have come before a restart; then agent.wait is enough.
func (s *socket) chat(agent, session, tag string) error {
	if err := s.call("chat.send", map[string]any{
		"sessionKey": "agent:" + agent + ":" + session, "message": tag, "idempotencyKey": tag,
	}); err != nil {
		return err
	}
	s.t.acknowledgedByKey(tag)
	return s.call("agent.wait", map[string]any{"runId": tag, "timeoutMs": patience.Milliseconds()})
}
