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
)

// Predecessor is the gateway that started this process in order to hand over to it, as seen from here.
type Predecessor struct {
	Question
	link *link
	once sync.Once
}

// ErrDismissed says that the predecessor does not need this process.
var ErrDismissed = errors.New("handoff: the predecessor goes on without this process")

// IsAsked reports whether a gateway asks this process whether it could take over; see [Asked].
func IsAsked() bool {
	_, ok := os.LookupEnv(questionEnv)
	return ok
}

// Asked returns the gateway that asks this process whether it could take over; nil when none does. The
// environment no longer names it.
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

// Answer says whether this process could take over; err says why not. Of very long warnings the last are left out.
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

// AwaitGo waits for everything that is handed over. [ErrDismissed] says that it does not come: this process
// holds nothing and ends.
func (p *Predecessor) AwaitGo() (*Inherited, error) {
	m, files, err := p.link.receive()
	switch {
	case errors.Is(err, io.EOF):
		return nil, ErrDismissed
	case err != nil:
		return nil, err
	case m.Say != sayGo:
		drop(files...)
		return nil, fmt.Errorf("handoff: hand-over: the predecessor says %q instead of %q", m.Say, sayGo)
	}
	failpoint.At("successor.go")
	doc, err := received(files)
	if err != nil {
		return nil, err
	}
	return &Inherited{About: doc.About, doc: doc}, nil
}

// Ready says that this process holds all and has opened the store, and waits until it may serve: the
// predecessor said so, or is dead. An error says that it may not, because ctx has ended; then the
// predecessor finds nobody to say it to, and goes on itself.
func (p *Predecessor) Ready(ctx context.Context) error {
	if err := p.link.send(message{Say: sayReady}); err != nil {
		return nil // it is dead, and all is here
	}
	failpoint.At("successor.ready")
	stop := context.AfterFunc(ctx, func() { _ = p.link.c.CloseRead() })
	defer stop()
	// After CloseRead nothing more can be said to us, and what was said before is still read.
	m, files, err := p.link.receive()
	drop(files...)
	switch {
	case err == nil && m.Say == sayServe:
		failpoint.At("successor.serve")
		return nil
	case err == nil:
		return fmt.Errorf("handoff: hand-over: the predecessor says %q instead of %q", m.Say, sayServe)
	case ctx.Err() != nil:
		return fmt.Errorf("handoff: hand-over: the predecessor did not let go: %w", context.Cause(ctx))
	default:
		return nil // it is dead
	}
}

// Failed says why this process cannot take over.
func (p *Predecessor) Failed(reason string) {
	_ = p.link.send(message{Say: sayFailed, Error: clip(reason)}) // it may be dead, or not wait any more
}

// Forwarded calls take with the connections that the predecessor hands over after the rest, until it has
// ended or Close is called.
func (p *Predecessor) Forwarded(take func([]Carried)) {
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
			take(conns)
		}
	}
}

// Close ends the conversation. A Forwarded that waits returns.
func (p *Predecessor) Close() { p.once.Do(func() { _ = p.link.c.Close() }) }

// clipLimit is how many bytes of text are said in one message: JSON may write one byte as six.
const clipLimit = messageLimit / 8

// clip bounds what is said over the link.
func clip(s string) string {
	if len(s) > clipLimit {
		return s[:clipLimit] + "…"
	}
	return s
}
