package queue

import (
	"testing"

	"github.com/rs/xid"
)

// An image that replaces another has its process number, and its counter may begin where the other's ended.
func TestTheSameCountInTwoGenerationsMakesTwoIDs(t *testing.T) {
	t.Parallel()
	count := xid.New()
	seen := map[string]int64{}
	for epoch := range int64(1 << 16) {
		id := newID(count, epoch)
		if before, ok := seen[id]; ok {
			t.Fatalf("generations %d and %d both make %s", before, epoch, id)
		}
		seen[id] = epoch
		if got, err := xid.FromString(id); err != nil || !got.Time().Equal(count.Time()) || got.Counter() != count.Counter() {
			t.Fatalf("generation %d makes %s of %s: %v", epoch, id, count, err)
		}
	}
}
