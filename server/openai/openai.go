package server

import (
	"github.com/rs/zerolog"

	"gateway/server/api"
)

// openAI are the endpoints of OpenAI's API.
type openAI struct {
	retirement *api.Retirement
	log        zerolog.Logger
}

// newOpenAI returns the endpoints. Their streams end when retirement begins.
func newOpenAI(retirement *api.Retirement, log zerolog.Logger) *openAI {
	return &openAI{retirement: retirement, log: log}
}
