// Package openai is the part of OpenAI's API that the gateway serves: responses, chat completions and models. A model is
// an agent, and a response or a completion is a turn.
//
// The invariant: a document is made from the turn and its log alone, so that it is the same on every connection and
// after every restart.
package openai

import (
	"github.com/rs/zerolog"

	"gateway/server/api"
)

// Endpoints are the endpoints of OpenAI's API.
type Endpoints struct {
	retirement *api.Retirement
	log        zerolog.Logger
}

// New returns the endpoints. Their streams end when retirement begins.
func New(retirement *api.Retirement, log zerolog.Logger) *Endpoints {
	return &Endpoints{retirement: retirement, log: log}
}
