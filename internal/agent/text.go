package agent

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxHeld bounds the line ends that are held back, in bytes: a program may print nothing else.
const maxHeld = 4 << 10

// textWriter emits bytes as text as they come. A character that is cut at the end of a write waits for its
// rest, bytes that are none become U+FFFD, and line ends at the very end are dropped, as a shell's $(…)
// drops them: whoever joins what was emitted has the output.
type textWriter struct {
	emit func(string) error
	held []byte // an unfinished character, or line ends
	err  error  // of emit; nothing is written after it
}

// Write implements io.Writer.
func (t *textWriter) Write(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	text := slices.Concat(t.held, p)
	keep := len(text) - unfinished(text)
	if trimmed := len(bytes.TrimRight(text[:keep], "\r\n")); len(text)-trimmed < maxHeld {
		keep = trimmed
	}
	if keep == 0 {
		t.held = bytes.Clone(text)
		return len(p), nil
	}
	t.held = bytes.Clone(text[keep:])
	if t.err = t.emit(strings.ToValidUTF8(string(text[:keep]), "\uFFFD")); t.err != nil {
		return 0, t.err
	}
	return len(p), nil
}

// finish emits what was held, unless it is line ends.
func (t *textWriter) finish() error {
	rest := bytes.TrimRight(t.held, "\r\n")
	t.held = nil
	if len(rest) == 0 {
		return nil
	}
	return t.emit(strings.ToValidUTF8(string(rest), "\uFFFD"))
}

// unfinished is how many bytes at the end may be the beginning of a character.
func unfinished(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if !utf8.FullRune(text[len(text)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
