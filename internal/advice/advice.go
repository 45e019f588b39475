// Package advice defines errors with advice. What went wrong and what to try are separate fields. Only this package writes
// the Try line that people read after the message.
package advice

import (
	"fmt"
	"strings"
)

// line separates a message from what to try.
const line = "\nTry: "

// Error is an error with advice. Its text is the message and, on a second line, what to try; without advice it is only the
// message. When %w wraps it at the end of another message, the line stays last.
type Error struct {
	Err error  // what went wrong
	Try string // what to try, such as a command; empty for none
}

func (e *Error) Error() string { return Text(e.Err.Error(), e.Try) }

func (e *Error) Unwrap() error { return e.Err }

// Message is an error whose advice comes with [Message.Try] or [Message.Tryf].
type Message struct{ err error }

// Errorf formats a message as [fmt.Errorf] does, %w included.
func Errorf(format string, args ...any) Message { return Message{fmt.Errorf(format, args...)} }

// Wrap makes an error the message.
func Wrap(err error) Message { return Message{err} }

// Try returns the error with what to try.
func (m Message) Try(what string) error { return &Error{m.err, what} }

// Tryf is Try with a text that is formatted as [fmt.Sprintf] does.
func (m Message) Tryf(format string, args ...any) error { return m.Try(fmt.Sprintf(format, args...)) }

// Default adds what to try to an error without advice.
func Default(err error, what string) error {
	if strings.Contains(err.Error(), "Try:") {
		return err
	}
	return Wrap(err).Try(what)
}

// Text joins a message and what to try for people.
func Text(message, what string) string {
	if what == "" {
		return message
	}
	return message + line + what
}

// Split returns the message of an error without its advice, and what to try; empty for none. It parses the text, because
// an error may come from another process.
func Split(err error) (message, what string) {
	message, what, _ = strings.Cut(err.Error(), line)
	return message, what
}

// Sentence splits a message of the API, in which what to try is the last sentence.
func Sentence(text string) (message, what string) {
	if message, what, found := strings.Cut(text, ". Try: "); found {
		return message, what
	}
	message, what, _ = strings.Cut(text, line)
	return message, what
}
