package process

import (
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
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
	spans, err := findOwnFile()
	if err != nil {
		t.Fatal(err)
	}
	var program uint64
	for _, s := range spans {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, s.start, s.length, unix.MADV_POPULATE_READ); errno != 0 {
			t.Fatal(errno)
		}
		program += uint64(s.length)
	}
	before := mapped()
	if before < program || program == 0 {
		t.Fatalf("%d bytes are mapped, which should have all %d of the program", before, program)
	}
	if err := Shed(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(); after > before-program/2 {
		t.Errorf("%d bytes are mapped, %d before, %d of them of the program", after, before, program)
	}
}
