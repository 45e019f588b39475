package server

import "net/http"

// routes is every endpoint, by the pattern of its ServeMux.
type routes struct {
	// gated endpoints need a Backend; the gate holds their requests while there is none.
	gated map[string]handler
	// always are answered in every state, from the lifecycle's snapshot.
	always map[string]func(http.ResponseWriter, *http.Request) error
}

func (s *Server) routes() routes {
	return routes{
		gated: map[string]handler{
			"GET /v1/models":                     s.listModels,
			"GET /v1/models/{model}":             s.showModel,
			"POST /v1/chat/completions":          s.createChat,
			"POST /v1/responses":                 s.createResponse,
			"GET /v1/responses/{id}":             s.showResponse,
			"DELETE /v1/responses/{id}":          s.deleteResponse,
			"POST /v1/responses/{id}/cancel":     s.cancelResponse,
			"GET /v1/responses/{id}/input_items": s.listInputItems,
			"GET /v1/turns":                      s.listTurns,
			"GET /v1/turns/{id}":                 s.showTurn,
			"DELETE /v1/turns/{id}":              s.deleteTurn,
			"GET /v1/turns/{id}/events":          s.turnEvents,
			"POST /v1/turns/{id}/cancel":         s.cancelTurn,
			"POST /v1/turns/{id}/retry":          s.retryTurn,
			"GET /v1/lanes":                      s.listLanes,
			"GET /v1/config":                     s.showConfig,
			"PATCH /v1/lanes/{lane}":             s.changeLane,
			"GET /v1/sessions":                   s.listSessions,
			"GET /v1/sessions/{session}":         s.showSession,
			"PATCH /v1/sessions/{session}":       s.changeSession,
		},
		always: map[string]func(http.ResponseWriter, *http.Request) error{
			"GET /{$}":                   s.home,
			"GET /page/{file}":           s.showPageFile,
			"GET /healthz":               s.healthy,
			"GET /readyz":                s.ready,
			"GET /v1/lifecycle":          s.showLifecycle,
			"GET /v1/events":             s.streamGateway,
			"POST /v1/lifecycle/restart": s.requestEvent("restart"),
			"POST /v1/lifecycle/stop":    s.requestEvent("stop"),
			"POST /v1/lifecycle/resume":  s.requestEvent("resume"),
			"GET /v1/states":             s.showStates,
			"GET /v1/openapi.json":       s.showOpenAPI,
			"GET /metrics":               s.showMetrics,
		},
	}
}
