package process

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Shed releases the pages of the program's file that are mapped into this process. Most were needed for the start only.
// A page that is needed again is mapped again at the next touch, as a rule from the page cache. So there is room for the
// successor, which has pages of its own when it is another program. Shed may be called at any time, and again.
func Shed() error {
	ownFile.Lock()
	defer ownFile.Unlock()
	if ownFile.spans == nil {
		var err error
		if ownFile.spans, err = findOwnFile(); err != nil {
			return fmt.Errorf("process: releasing pages: %w", err)
		}
	}
	for _, s := range ownFile.spans {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, s.start, s.length, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("process: releasing pages: %w", errno)
		}
	}
	return nil
}

// span is a part of the address space.
type span struct{ start, length uintptr }

// ownFile is found once, since that takes half a millisecond while requests may wait. What the kernel and the loader have
// mapped of the program before main stays where it is. Libraries come and go, so they are not included.
var ownFile struct {
	sync.Mutex
	spans []span
}

// findOwnFile lists the parts of the program's file that are mapped unchanged. None is writable, and none was changed by
// a loader that relocates it: such changes would exist nowhere else. A breakpoint or uprobe that is set later is lost.
func findOwnFile() (spans []span, err error) {
	path, err := os.Readlink("/proc/self/exe") // spelt as in the map, also once the file has been replaced
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var part span
	asIs := false // whether that part is one to list
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		switch key, value, _ := strings.Cut(line, ":"); key {
		case "Anonymous":
			asIs = asIs && strings.TrimSpace(value) == "0 kB"
		case "Swap": // comes after; what is anonymous may be there
			if asIs && strings.TrimSpace(value) == "0 kB" {
				spans = append(spans, part)
			}
		default:
			var start, end uintptr
			var access string
			if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &access); n == 3 { // the next part
				part = span{start, end - start}
				asIs = strings.HasSuffix(line, " "+path) && (access == "r-xp" || access == "r--p")
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err // not a part of them: the next call tries again
	}
	return spans, nil
}
