// Package process holds what ties one process of the gateway to its operating system: signals, the supervisor, and the
// memory that it can do without.
//
// The invariant: whatever the supervisor or a signal does, no caller waits for either.
package process

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// signalBuffer is how many signals of one kind may wait; more of that kind change nothing.
	signalBuffer = 8
	// quiesceTime is how long Quiesce waits for the delivery of a signal that was caught before.
	quiesceTime = 200 * time.Millisecond
)

// Signals passes the signals that arrive to one function. Each kind has a queue and a goroutine of its own: a slow reload
// can neither delay a stop nor crowd it out. [Listen] makes one.
type Signals struct {
	kinds []*kind
}

type kind struct {
	sig    os.Signal
	caught chan os.Signal
	flush  chan chan struct{}
	done   chan struct{}
	ended  chan struct{}
	once   sync.Once
}

// Listen starts to call deliver with the signals that arrive, from several goroutines.
func Listen(deliver func(os.Signal), sigs ...os.Signal) *Signals {
	s := &Signals{}
	for _, sig := range sigs {
		k := &kind{
			sig: sig, caught: make(chan os.Signal, signalBuffer), flush: make(chan chan struct{}),
			done: make(chan struct{}), ended: make(chan struct{}),
		}
		s.kinds = append(s.kinds, k)
		signal.Notify(k.caught, sig)
		go k.loop(deliver)
	}
	return s
}

func (k *kind) loop(deliver func(os.Signal)) {
	defer close(k.ended)
	for {
		select {
		case sig := <-k.caught:
			deliver(sig)
		case flushed := <-k.flush:
			for len(k.caught) > 0 {
				deliver(<-k.caught)
			}
			close(flushed)
		case <-k.done:
			return
		}
	}
}

// Quiesce prepares for the replacement of the process image. When it returns, every signal caught so far has been
// delivered, unless its delivery takes long. From then on SIGTERM and SIGINT end the process at once, so that a stop in
// the last moment is still a stop. SIGHUP and SIGUSR1, whose default action is to kill, are ignored until the new image
// listens. Restore listens again.
func (s *Signals) Quiesce() (restore func()) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1)
	for _, k := range s.kinds {
		signal.Stop(k.caught) // returns when all that was caught is in the channel
	}
	deadline := time.NewTimer(quiesceTime)
	defer deadline.Stop()
	for _, k := range s.kinds {
		flushed := make(chan struct{})
		select {
		case k.flush <- flushed:
		case <-k.ended:
			continue
		case <-deadline.C:
			deadline.Reset(0)
			continue
		}
		select {
		case <-flushed:
		case <-deadline.C: // a delivery that the flush has begun takes long
			deadline.Reset(0)
		}
	}
	return func() {
		for _, k := range s.kinds {
			signal.Notify(k.caught, k.sig)
		}
	}
}

// Close stops listening and waits for the goroutines. It may be called again.
func (s *Signals) Close() {
	for _, k := range s.kinds {
		k.once.Do(func() {
			signal.Stop(k.caught)
			close(k.done)
		})
		<-k.ended
	}
}
