package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"gateway/internal/failpoint"
	"gateway/server/carry"
)

// Predecessor is the gateway that started this process in order to hand over to it, as this process sees it. [Asked]
// makes one.
type Predecessor struct {
	Question
	link *link
	once sync.Once
}

// ErrDismissed is returned when the predecessor does not need this process.
var ErrDismissed = errors.New("handoff: the predecessor does not need this process")

// IsAsked reports whether a gateway has started this process to ask whether it could take over; see [Asked].
func IsAsked() bool {
	_, ok := os.LookupEnv(questionEnv)
	return ok
}

// Asked returns the gateway that has started this process to ask whether it could take over; nil when none has. From
// here on the environment no longer holds the question.
func Asked() (*Predecessor, error) {
	value, ok := os.LookupEnv(questionEnv)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(questionEnv)
	p := &Predecessor{}
	if err := json.Unmarshal([]byte(value), &p.Question); err != nil {
		return nil, fmt.Errorf("handoff: the predecessor's question: %w", err)
	}
	var err error
	if p.link, err = openLink(linkFD); err != nil {
		return nil, err
	}
	failpoint.At("successor.asked")
	return p, nil
}

// Answer answers whether this process could take over; err is why not. Warnings that do not fit into a message are left
// out.
func (p *Predecessor) Answer(version string, warnings []string, err error) error {
	if err != nil {
		return p.link.send(message{Say: sayRefused, Error: clip(err.Error())})
	}
	m, size := message{Say: sayPrepared, Version: version}, 0
	for _, w := range warnings {
		if size += len(w); size > clipLimit {
			break
		}
		m.Warnings = append(m.Warnings, w)
	}
	sent := p.link.send(m)
	failpoint.At("successor.prepared")
	return sent
}

// AwaitGo waits for everything that is passed. On [ErrDismissed] nothing is passed: this process holds nothing and ends.
func (p *Predecessor) AwaitGo() (*Inherited, error) {
	m, files, err := p.link.receive()
	switch {
	case errors.Is(err, io.EOF):
		return nil, ErrDismissed
	case err != nil:
		return nil, err
	case m.Say != sayGo:
		drop(files...)
		return nil, fmt.Errorf("handoff: the predecessor sent %q instead of %q", m.Say, sayGo)
	}
	failpoint.At("successor.go")
	doc, err := received(files)
	if err != nil {
		return nil, err
	}
	return &Inherited{About: doc.About, doc: doc}, nil
}

// Ready reports to the predecessor that this process holds everything and has opened the store, and waits until it may
// serve: the predecessor sent serve, or is dead. When ctx ends first, Ready returns an error, this process may not
// serve, and the predecessor, whose serve no longer arrives, goes on itself. last is what [Successor.Serve] was
// given; nil when the predecessor is dead.
func (p *Predecessor) Ready(ctx context.Context) (last json.RawMessage, err error) {
	if err := p.link.send(message{Say: sayReady}); err != nil {
		return nil, nil // the predecessor is dead, and everything is here
	}
	failpoint.At("successor.ready")
	stop := context.AfterFunc(ctx, func() { _ = p.link.c.CloseRead() })
	defer stop()
	// After CloseRead nothing more arrives, and what has arrived is still read.
	m, files, err := p.link.receive()
	drop(files...)
	switch {
	case err == nil && m.Say == sayServe:
		failpoint.At("successor.serve")
		return m.Hop, nil
	case err == nil:
		return nil, fmt.Errorf("handoff: the predecessor sent %q instead of %q", m.Say, sayServe)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("handoff: the predecessor did not send %q: %w", sayServe, context.Cause(ctx))
	default:
		return nil, nil // the predecessor is dead
	}
}

// Failed reports to the predecessor why this process cannot take over.
func (p *Predecessor) Failed(reason string) {
	_ = p.link.send(message{Say: sayFailed, Error: clip(reason)}) // the predecessor may be dead, or no longer wait
}

// Forwarded calls serve with the connections that the predecessor passes after the rest, until the predecessor has ended
// or Close is called.
func (p *Predecessor) Forwarded(serve func([]carry.Connection)) {
	for {
		m, files, err := p.link.receive()
		if err != nil {
			return
		}
		if m.Say != sayMore {
			drop(files...)
			continue
		}
		if doc, err := received(files); err == nil {
			conns, _ := doc.open() // the client of a connection that cannot be used sees its end
			serve(conns)
		}
	}
}

// Close closes the link. A waiting Forwarded returns.
func (p *Predecessor) Close() { p.once.Do(func() { _ = p.link.c.Close() }) }

// clipLimit is how many bytes of text go into one message: JSON may write one byte as six.
const clipLimit = messageLimit / 8

// clip bounds the text of a message.
func clip(s string) string {
	if len(s) > clipLimit {
		return s[:clipLimit] + "…"
	}
	return s
}
