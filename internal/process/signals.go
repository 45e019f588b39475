package process

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signalBuffer is more than can arrive between two reads of a goroutine that only hands them on.
const signalBuffer = 64

// Signals hands each signal that arrives to one function, in order.
type Signals struct {
	caught  chan os.Signal
	flush   chan chan struct{}
	done    chan struct{}
	ended   chan struct{}
	listen  []os.Signal
	deliver func(os.Signal)
	once    sync.Once
}

// Listen starts to hand signals to deliver, which must not block.
func Listen(deliver func(os.Signal), sigs ...os.Signal) *Signals {
	s := &Signals{
		caught: make(chan os.Signal, signalBuffer), flush: make(chan chan struct{}),
		done: make(chan struct{}), ended: make(chan struct{}), listen: sigs, deliver: deliver,
	}
	signal.Notify(s.caught, sigs...)
	go s.loop()
	return s
}

func (s *Signals) loop() {
	defer close(s.ended)
	for {
		select {
		case sig := <-s.caught:
			s.deliver(sig)
		case flushed := <-s.flush:
			for len(s.caught) > 0 {
				s.deliver(<-s.caught)
			}
			close(flushed)
		case <-s.done:
			return
		}
	}
}

// Quiesce prepares for the replacement of the process image. Every signal caught so far has been handed
// on when it returns. From then on SIGTERM and SIGINT end the process at once, so that a stop in the last
// moment is still a stop, and SIGHUP and SIGUSR1, whose default action is to kill, are ignored until the
// new image listens. restore goes back to listening.
func (s *Signals) Quiesce() (restore func()) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1)
	signal.Stop(s.caught) // returns when all that was caught is in the channel
	flushed := make(chan struct{})
	select {
	case s.flush <- flushed:
		<-flushed
	case <-s.ended:
	}
	return func() { signal.Notify(s.caught, s.listen...) }
}

// Close stops listening and waits for the goroutine.
func (s *Signals) Close() {
	s.once.Do(func() {
		signal.Stop(s.caught)
		close(s.done)
	})
	<-s.ended
}
