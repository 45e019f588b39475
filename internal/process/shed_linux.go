package process

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Shed gives back the pages of the program's file that are mapped into this process: most were needed for the start
// only, and those that are needed again come from the page cache. So there is room for the other generation, which has
// pages of its own when it is another program.
func Shed() error {
	spans, err := ownFile()
	if err != nil {
		return fmt.Errorf("process: giving pages back: %w", err)
	}
	for _, s := range spans {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, s.start, s.length, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("process: giving pages back: %w", errno)
		}
	}
	return nil
}

// span is a part of the address space.
type span struct{ start, length uintptr }

// ownFile lists the parts of the program's file, and of its libraries', that cannot be written to. They stay the same.
var ownFile = sync.OnceValues(func() (spans []span, err error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var start, end uintptr
	program := false // whether the lines are about such a part
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if key, value, _ := strings.Cut(line, ":"); !strings.Contains(key, " ") && value != "" {
			// What is anonymous was written to in this process, as by a loader that relocates it, and is nowhere else.
			if program && key == "Anonymous" && strings.TrimSpace(value) == "0 kB" {
				spans = append(spans, span{start, end - start})
			}
			continue
		}
		var access, offset, device, path string
		var inode uint64
		_, err := fmt.Sscanf(line, "%x-%x %s %s %s %d %s", &start, &end, &access, &offset, &device, &inode, &path)
		program = err == nil && inode != 0 && (access == "r-xp" || access == "r--p")
	}
	return spans, lines.Err()
})
