package server

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

const (
	maxKey    = 255 // bytes of an idempotency key
	maxName   = 256 // bytes of a session's name
	maxReason = 200 // bytes of a reason
	maxID     = 64  // bytes of a turn's id
)

// printable reports whether s is valid text of at most limit bytes without control characters.
func printable(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// notText is where the first byte is that is no UTF-8; -1 when there is none. JSON's decoder would replace it.
func notText(body []byte) int {
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

// fields is a JSON object whose members are taken one by one; what is left was not understood.
type fields map[string]json.RawMessage

// parseFields reads one object and nothing behind it.
func parseFields(body []byte) (fields, error) {
	if len(body) == 0 {
		return nil, invalid("", "invalid_json", "the body is empty. Try: a JSON object")
	}
	var f fields
	if err := json.Unmarshal(body, &f); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, invalid("", "invalid_json", "the body is not valid JSON at byte %d: %s. Try: jq . on it, which shows the place", syntax.Offset, syntax)
		}
		return nil, invalid("", "invalid_json", "the body is not a JSON object. Try: {\"input\": \"hello\"}")
	}
	if f == nil {
		return nil, invalid("", "invalid_json", "the body is not a JSON object. Try: {\"input\": \"hello\"}")
	}
	return f, nil
}

// take decodes a member and removes it. A missing one and null leave into as it is.
func (f fields) take(name string, into any) error {
	raw, ok := f[name]
	delete(f, name)
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return invalid(name, "invalid_type", "%s cannot be a %s. Try: %s", name, wrong.Value, sample(wrong.Type))
		}
		return invalid(name, "invalid_type", "%s is not valid: %s. Try: without it", name, err)
	}
	return nil
}

// member is where a member's value goes.
type member struct {
	name  string
	value any
}

// into has the member decoded to what value points to.
func into(name string, value any) member { return member{name, value} }

func (f fields) takeEach(members ...member) error {
	for _, m := range members {
		if err := f.take(m.name, m.value); err != nil {
			return err
		}
	}
	return nil
}

// drop removes members that change nothing here.
func (f fields) drop(names ...string) {
	for _, name := range names {
		delete(f, name)
	}
}

// rest refuses the first member that was not taken, unless it asks for nothing. where is put before its
// name.
func (f fields) rest(where string) error {
	names := make([]string, 0, len(f))
	for name, raw := range f {
		if !asksNothing(raw) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	name := where + clip(slices.Min(names))
	return unsupported(name, "the gateway would have to ignore it. Try: without it")
}

// asksNothing reports whether a parameter is at the value that means that it is not there.
func asksNothing(raw json.RawMessage) bool {
	switch string(raw) {
	case "null", "false", `""`, "[]", "{}":
		return true
	}
	return false
}

// unknown refuses the first member that was not taken, whatever its value.
func (f fields) unknown(where string) error {
	if len(f) == 0 {
		return nil
	}
	name := where + clip(slices.Min(slices.Collect(maps.Keys(f))))
	return invalid(name, "unknown_property", "%s is not known. Try: without it", name)
}
