package api

import (
	"errors"
	"fmt"
	"net/http"

	"gateway/queue"
)

// TurnID takes the turn's id from the path.
func TurnID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if id == "" || !Printable(id, MaxID) {
		return "", NoSuchTurn(id)
	}
	return id, nil
}

// TurnOf reads the turn that the path names.
func TurnOf(r *http.Request, b *Backend) (queue.Turn, error) {
	id, err := TurnID(r)
	if err != nil {
		return queue.Turn{}, err
	}
	t, err := b.Queue.Turn(r.Context(), id)
	if errors.Is(err, queue.ErrNotFound) {
		return t, NoSuchTurn(id)
	}
	return t, err
}

// CancelTurn ends the turn. One that is cancelled already is as good as cancelled now.
func CancelTurn(r *http.Request, b *Backend) (queue.Turn, error) {
	id, err := TurnID(r)
	if err != nil {
		return queue.Turn{}, err
	}
	t, err := b.Queue.Cancel(r.Context(), id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return t, NoSuchTurn(id)
	case errors.Is(err, queue.ErrConflict) && t.Status == queue.Cancelled:
		return t, nil
	}
	return t, err
}

// DeleteTurn deletes a turn that has ended, and returns what it was.
func DeleteTurn(r *http.Request, b *Backend) (queue.Turn, error) {
	id, err := TurnID(r)
	if err != nil {
		return queue.Turn{}, err
	}
	t, err := b.Queue.Delete(r.Context(), id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return t, NoSuchTurn(id)
	case errors.Is(err, queue.ErrConflict):
		return t, &Error{
			Status: http.StatusConflict, Type: TypeInvalid, Code: "conflict", Settled: true, Cause: err,
			Message: fmt.Sprintf("turn %s is %s, and only one that has ended can be deleted. Try: POST /v1/turns/%[1]s/cancel first", id, t.Status),
		}
	}
	return t, err
}
