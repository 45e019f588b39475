package child

import "strings"

// Tail keeps the last bytes that are written to it, as a rule the standard error of a program. Read it when the writing
// has ended, which for a program is after [Wait]. The zero value keeps nothing.
type Tail struct {
	// Limit is how much is kept, in bytes.
	Limit int

	kept []byte
}

// Write implements [io.Writer]; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-t.Limit):]...)
	t.kept = append(t.kept[:0], t.kept[max(0, len(t.kept)-t.Limit):]...)
	return len(p), nil
}

// String is what is kept, as valid UTF-8.
func (t *Tail) String() string { return strings.ToValidUTF8(string(t.kept), "\uFFFD") }
