package server

import (
	"net/http"

	"gateway/fsm"
	"gateway/server/api"
)

// routes is every endpoint, by the pattern of its ServeMux.
type routes struct {
	// gated endpoints need a Backend; the gate holds their requests while there is none.
	gated map[string]route[api.Handler]
	// always are answered in every state, from the lifecycle's snapshot.
	always map[string]route[always]
}

// always is an endpoint that needs no Backend.
type always func(w http.ResponseWriter, r *http.Request) error

// route is an endpoint with the scope that it asks for. A pause of a lane holds back everybody's work, and the
// configuration names programs and files: both are for who runs the gateway.
type route[H any] struct {
	needs api.Scope
	serve H
}

func (s *Server) routes() routes {
	return routes{
		gated: map[string]route[api.Handler]{
			"GET /v1/models":                     {api.Read, s.openAI.ListModels},
			"GET /v1/models/{model}":             {api.Read, s.openAI.ShowModel},
			"POST /v1/chat/completions":          {api.Write, s.openAI.CreateChat},
			"POST /v1/responses":                 {api.Write, s.openAI.CreateResponse},
			"GET /v1/responses/{id}":             {api.Read, s.openAI.ShowResponse},
			"DELETE /v1/responses/{id}":          {api.Write, s.openAI.DeleteResponse},
			"POST /v1/responses/{id}/cancel":     {api.Write, s.openAI.CancelResponse},
			"GET /v1/responses/{id}/input_items": {api.Read, s.openAI.ListInputItems},
			"GET /v1/turns":                      {api.Read, s.listTurns},
			"GET /v1/turns/{id}":                 {api.Read, s.showTurn},
			"DELETE /v1/turns/{id}":              {api.Write, s.deleteTurn},
			"GET /v1/turns/{id}/events":          {api.Read, s.turnEvents},
			"POST /v1/turns/{id}/cancel":         {api.Write, s.cancelTurn},
			"POST /v1/turns/{id}/retry":          {api.Write, s.retryTurn},
			"GET /v1/lanes":                      {api.Read, s.listLanes},
			"GET /v1/config":                     {api.Admin, s.showConfig},
			"POST /v1/lifecycle/check":           {api.Admin, s.checkSuccessor},
			"PATCH /v1/lanes/{lane}":             {api.Admin, s.changeLane},
			"GET /v1/sessions":                   {api.Read, s.listSessions},
			"GET /v1/sessions/{session}":         {api.Read, s.showSession},
			"PATCH /v1/sessions/{session}":       {api.Write, s.changeSession},
		},
		always: map[string]route[always]{
			"GET /{$}":                   {api.Anyone, s.home},
			"GET /page/{file}":           {api.Anyone, s.showPageFile},
			"GET /healthz":               {api.Anyone, s.healthy},
			"GET /readyz":                {api.Anyone, s.ready},
			"GET /v1/lifecycle":          {api.Read, s.showLifecycle},
			"GET /v1/events":             {api.Read, s.streamGateway},
			"POST /v1/lifecycle/restart": {api.Admin, s.requestEvent(fsm.Restart)},
			"POST /v1/lifecycle/stop":    {api.Admin, s.requestEvent(fsm.Stop)},
			"POST /v1/lifecycle/resume":  {api.Admin, s.requestEvent(fsm.Resume)},
			"GET /v1/states":             {api.Read, s.showStates},
			"GET /v1/openapi.json":       {api.Read, s.showOpenAPI},
			"GET /metrics":               {api.Read, s.showMetrics},
		},
	}
}
