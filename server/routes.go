package server

import "net/http"

// routes is every endpoint, by the pattern of its ServeMux.
type routes struct {
	// gated endpoints need a Backend; the gate holds their requests while there is none.
	gated map[string]route[handler]
	// always are answered in every state, from the lifecycle's snapshot.
	always map[string]route[always]
}

// always is an endpoint that needs no Backend.
type always func(w http.ResponseWriter, r *http.Request) error

// route is an endpoint with the scope that it asks for. A pause of a lane holds back everybody's work, and the
// configuration names programs and files: both are for who runs the gateway.
type route[H any] struct {
	needs Scope
	serve H
}

func (s *Server) routes() routes {
	return routes{
		gated: map[string]route[handler]{
			"GET /v1/models":                     {Read, s.listModels},
			"GET /v1/models/{model}":             {Read, s.showModel},
			"POST /v1/chat/completions":          {Write, s.createChat},
			"POST /v1/responses":                 {Write, s.createResponse},
			"GET /v1/responses/{id}":             {Read, s.showResponse},
			"DELETE /v1/responses/{id}":          {Write, s.deleteResponse},
			"POST /v1/responses/{id}/cancel":     {Write, s.cancelResponse},
			"GET /v1/responses/{id}/input_items": {Read, s.listInputItems},
			"GET /v1/turns":                      {Read, s.listTurns},
			"GET /v1/turns/{id}":                 {Read, s.showTurn},
			"DELETE /v1/turns/{id}":              {Write, s.deleteTurn},
			"GET /v1/turns/{id}/events":          {Read, s.turnEvents},
			"POST /v1/turns/{id}/cancel":         {Write, s.cancelTurn},
			"POST /v1/turns/{id}/retry":          {Write, s.retryTurn},
			"GET /v1/lanes":                      {Read, s.listLanes},
			"GET /v1/config":                     {Admin, s.showConfig},
			"POST /v1/lifecycle/check":           {Admin, s.checkSuccessor},
			"PATCH /v1/lanes/{lane}":             {Admin, s.changeLane},
			"GET /v1/sessions":                   {Read, s.listSessions},
			"GET /v1/sessions/{session}":         {Read, s.showSession},
			"PATCH /v1/sessions/{session}":       {Write, s.changeSession},
		},
		always: map[string]route[always]{
			"GET /{$}":                   {anyone, s.home},
			"GET /page/{file}":           {anyone, s.showPageFile},
			"GET /healthz":               {anyone, s.healthy},
			"GET /readyz":                {anyone, s.ready},
			"GET /v1/lifecycle":          {Read, s.showLifecycle},
			"GET /v1/events":             {Read, s.streamGateway},
			"POST /v1/lifecycle/restart": {Admin, s.requestEvent("restart")},
			"POST /v1/lifecycle/stop":    {Admin, s.requestEvent("stop")},
			"POST /v1/lifecycle/resume":  {Admin, s.requestEvent("resume")},
			"GET /v1/states":             {Read, s.showStates},
			"GET /v1/openapi.json":       {Read, s.showOpenAPI},
			"GET /metrics":               {Read, s.showMetrics},
		},
	}
}
