package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

// Stream writes server-sent events. Nothing is sent before the first one.
//
// It writes through the ResponseWriter that it was given. sse.Session unwraps it and writes to the
// innermost one, behind the back of the gate, which must know whether anything was written.
type Stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	Open bool
}

// NewStream returns a stream that has not begun.
func NewStream(w http.ResponseWriter) *Stream {
	return &Stream{w: w, rc: http.NewResponseController(w)}
}

// begin sends the head of the stream, once.
func (s *Stream) begin() error {
	if err := setWriteDeadline(s.rc, time.Now().Add(WriteTimeout)); err != nil {
		return err
	}
	if s.Open {
		return nil
	}
	s.Open = true
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
	return nil
}

// Send writes one event whose data is a JSON document; name and id may be empty. It is on its way once
// Flush returned.
func (s *Stream) Send(name, id string, document any) error {
	data, err := EncodeJSON(document)
	if err != nil {
		return fmt.Errorf("server: encoding an event: %w", err)
	}
	return s.SendText(name, id, string(bytes.TrimSuffix(data, []byte("\n"))))
}

// SendText writes one event with any text as its data.
func (s *Stream) SendText(name, id, data string) error {
	var m sse.Message
	if name != "" {
		m.Type = sse.Type(name)
	}
	if id != "" {
		m.ID = sse.ID(id)
	}
	m.AppendData(data)
	return s.write(&m)
}

// Comment writes what clients skip and proxies take for life.
func (s *Stream) Comment(text string) error {
	var m sse.Message
	m.AppendComment(text)
	return s.write(&m)
}

func (s *Stream) write(m *sse.Message) error {
	if err := s.begin(); err != nil {
		return err
	}
	if _, err := m.WriteTo(s.w); err != nil {
		return fmt.Errorf("server: writing an event: %w", err)
	}
	return nil
}

// Pass writes events that are encoded already.
func (s *Stream) Pass(events []byte) error {
	if err := s.begin(); err != nil {
		return err
	}
	if _, err := s.w.Write(events); err != nil {
		return fmt.Errorf("server: writing events: %w", err)
	}
	return nil
}

// Flush sends what was written on its way.
func (s *Stream) Flush() error {
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("server: flushing events: %w", err)
	}
	return nil
}

// End flushes and leaves the connection without a deadline for the answer after this one.
func (s *Stream) End() error {
	if err := s.begin(); err != nil {
		return err
	}
	return errors.Join(s.Flush(), setWriteDeadline(s.rc, time.Time{}))
}
