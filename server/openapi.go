package server

import (
	_ "embed"
	"fmt"
	"net/http"
	"sync"

	"github.com/goccy/go-yaml"

	"gateway/server/api"
)

// The description is written as YAML, for people, and served as JSON, which needs no parser of its own. It is
// part of the program, so that what a gateway says of itself is what it does, whichever version answers.
//
//go:embed openapi.yaml
var openAPI []byte

var openAPIAsJSON = sync.OnceValues(func() ([]byte, error) {
	raw, err := yaml.YAMLToJSON(openAPI)
	if err != nil {
		return nil, fmt.Errorf("server: the description of the API: %w", err)
	}
	return raw, nil
})

func (s *Server) showOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	raw, err := openAPIAsJSON()
	if err != nil {
		return err
	}
	return api.ReplyText(w, http.StatusOK, "application/json", raw)
}
