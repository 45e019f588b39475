package process_test

import (
	"testing"

	"github.com/prometheus/procfs"

	"gateway/internal/process"
)

// Not in parallel: other tests would map pages again meanwhile.
func TestShedGivesThePagesOfTheProgramBack(t *testing.T) { //nolint:paralleltest // see above
	mapped := func() uint64 {
		t.Helper()
		self, err := procfs.Self()
		if err != nil {
			t.Fatal(err)
		}
		status, err := self.NewStatus()
		if err != nil {
			t.Fatal(err)
		}
		return status.RssFile
	}
	before := mapped()
	if err := process.Shed(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(); after >= before/2 {
		t.Errorf("%d bytes of the program are mapped, %d before", after, before)
	}
}
