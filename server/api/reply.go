package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Reply writes a JSON document. The client has WriteTimeout to take it.
func Reply(w http.ResponseWriter, status int, document any) error {
	body, err := EncodeJSON(document)
	if err != nil {
		return fmt.Errorf("server: encoding an answer: %w", err)
	}
	return ReplyText(w, status, "application/json", body)
}

// EncodeJSON is json.Marshal with a newline at the end, which leaves <, > and & as they are: people read addresses
// in the answers, and none of these is a page.
func EncodeJSON(document any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(document)
	return b.Bytes(), err
}

// ReplyText writes an answer of any type. The client has WriteTimeout to take it.
func ReplyText(w http.ResponseWriter, status int, contentType string, body []byte) error {
	rc := http.NewResponseController(w)
	if err := setWriteDeadline(rc, time.Now().Add(WriteTimeout)); err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("server: answering: %w", err)
	}
	return setWriteDeadline(rc, time.Time{}) // the connection's next answer has its own
}

// WriteTimeout is how long a client has to take one write; then it is cut off.
const WriteTimeout = 30 * time.Second

func setWriteDeadline(rc *http.ResponseController, t time.Time) error {
	if err := rc.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("server: write deadline: %w", err)
	}
	return nil
}
