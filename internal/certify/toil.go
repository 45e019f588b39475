package main

import (
	"context"
	"crypto/sha256"
	"time"
)

const (
	// A piece of work is so many blocks hashed one after the other: some ten milliseconds, about what a restart
	// computes while clients wait.
	toilBlocks = 100_000
	toils      = 300
	toilRest   = 20 * time.Millisecond
)

// toil is how long the same piece of work takes each time when nothing else runs: on a machine that is shared, now and
// then several times as long as usual, however idle it looks from inside.
func toil(ctx context.Context) (took []time.Duration) {
	var sum [sha256.Size]byte
	for range toils {
		if ctx.Err() != nil {
			break
		}
		began := time.Now()
		for range toilBlocks {
			sum = sha256.Sum256(sum[:])
		}
		took = append(took, time.Since(began))
		pause(ctx, toilRest)
	}
	return took
}
