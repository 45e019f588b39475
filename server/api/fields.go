package api

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What clients name things by is bounded.
const (
	MaxKey    = 255 // bytes of an idempotency key
	MaxName   = 256 // bytes of a session's name
	MaxReason = 200 // bytes of a reason
	MaxID     = 64  // bytes of a turn's id
)

// Printable reports whether s is valid text of at most limit bytes without control characters.
func Printable(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// NotText is where the first byte is that is no UTF-8; -1 when there is none. JSON's decoder would replace it.
func NotText(body []byte) int {
	if utf8.Valid(body) {
		return -1
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(body[at:])
		if r == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
}

// sample is what may stand where a value of type t is taken.
func sample(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a number"
	}
}

// Fields is a JSON object whose members are taken out one by one. What is left at the end was not understood.
type Fields map[string]json.RawMessage

// ParseFields reads one object and nothing behind it.
func ParseFields(body []byte) (Fields, error) {
	if len(body) == 0 {
		return nil, Invalid("", "invalid_json", "the body is empty. Try: a JSON object")
	}
	var f Fields
	if err := json.Unmarshal(body, &f); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, Invalid("", "invalid_json", "the body is not valid JSON at byte %d: %s. Try: jq . on it, which shows the place", syntax.Offset, syntax)
		}
		return nil, Invalid("", "invalid_json", "the body is not a JSON object. Try: {\"input\": \"hello\"}")
	}
	if f == nil {
		return nil, Invalid("", "invalid_json", "the body is not a JSON object. Try: {\"input\": \"hello\"}")
	}
	return f, nil
}

// TakeMember decodes a member and removes it. A missing one and null leave into as it is.
func (f Fields) TakeMember(name string, into any) error {
	raw, ok := f[name]
	delete(f, name)
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return Invalid(name, "invalid_type", "%s cannot be a %s. Try: %s", name, wrong.Value, sample(wrong.Type))
		}
		return Invalid(name, "invalid_type", "%s is not valid: %s. Try: without it", name, err)
	}
	return nil
}

// Member is a member of an object, and where its value goes; see [Into].
type Member struct {
	name  string
	value any
}

// Into has the member decoded to what value points to.
func Into(name string, value any) Member { return Member{name, value} }

// TakeMembers takes several members and returns the first error.
func (f Fields) TakeMembers(members ...Member) error {
	for _, m := range members {
		if err := f.TakeMember(m.name, m.value); err != nil {
			return err
		}
	}
	return nil
}

// Drop removes members that change nothing here.
func (f Fields) Drop(names ...string) {
	for _, name := range names {
		delete(f, name)
	}
}

// RefuseRest refuses the first member that was not taken, unless it asks for nothing. where is put before its
// name.
func (f Fields) RefuseRest(where string) error {
	names := make([]string, 0, len(f))
	for name, raw := range f {
		if !asksNothing(raw) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	name := where + Clip(slices.Min(names))
	return Unsupported(name, "the gateway cannot honour it. Try: without it")
}

// asksNothing reports whether a parameter is at the value that means that it is not there.
func asksNothing(raw json.RawMessage) bool {
	switch string(raw) {
	case "null", "false", `""`, "[]", "{}":
		return true
	}
	return false
}

// RefuseUnknown refuses the first member that was not taken, whatever its value.
func (f Fields) RefuseUnknown(where string) error {
	if len(f) == 0 {
		return nil
	}
	name := where + Clip(slices.Min(slices.Collect(maps.Keys(f))))
	return Invalid(name, "unknown_property", "%s is not known. Try: without it", name)
}
