package queue

import (
	"context"
	"iter"
)

// pageOfEvents and pageOfText, in bytes, bound what a reader holds in memory at once: it may stop reading.
const (
	pageOfEvents = 128
	pageOfText   = 32 << 10
)

// Wait returns the turn when its status is final.
func (q *Queue) Wait(ctx context.Context, id string) (Turn, error) {
	for {
		topic, open := q.hub.watch(id)
		if !open {
			// Whatever becomes final from here on is told to the topic.
			t, err := q.Turn(ctx, id)
			if err != nil || t.Status.Final() {
				q.hub.unwatch(id, topic)
				return t, err
			}
		}
		t, err := q.final(ctx, id, topic)
		q.hub.unwatch(id, topic)
		if err != nil || t.Status.Final() {
			return t, err
		}
	}
}

// final waits until the topic's turn is final.
func (q *Queue) final(ctx context.Context, id string, topic *topic) (Turn, error) {
	select {
	case <-topic.final:
	default:
		select {
		case <-topic.final:
		case <-ctx.Done():
			return Turn{}, ctx.Err()
		case <-q.hub.ended:
			return Turn{}, q.hub.err
		}
	}
	if topic.turn == nil {
		return q.Turn(ctx, id)
	}
	return *topic.turn, nil
}

// Follow yields the turn's events after the sequence `after`, those on disk first and then live, until
// the final one, the end of ctx (its error), or the end of the queue (error [ErrClosed]). A slow reader
// slows nobody.
func (q *Queue) Follow(ctx context.Context, id string, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			events, ended, err := q.next(ctx, id, after)
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				after = e.Seq
			}
			if err != nil {
				yield(Event{}, err)
			}
			if err != nil || ended {
				return
			}
		}
	}
}

// next returns the events after a sequence, waiting for the first of them; ended when no other follows.
func (q *Queue) next(ctx context.Context, id string, after int64) (events []Event, ended bool, err error) {
	topic, open := q.hub.watch(id)
	defer q.hub.unwatch(id, topic)
	// Asked for before reading: what is committed after the read rings.
	news := q.hub.news(topic)
	events, err = read(q, func() ([]Event, error) { return q.store.events(ctx, id, after, pageOfEvents) })
	if n := len(events); n > 0 || err != nil {
		return events, err == nil && n < pageOfEvents && events[n-1].Type.Final(), err
	}
	if !open {
		t, err := q.Turn(ctx, id)
		if err != nil || t.Status.Final() && t.LastEvent <= after {
			return nil, err == nil, err
		}
	}
	select {
	case <-news:
		return nil, false, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	case <-q.hub.ended:
		return nil, false, q.hub.err
	}
}
