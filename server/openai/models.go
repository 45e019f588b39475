package openai

import (
	"net/http"

	"gateway/server/api"
)

// model is an agent as OpenAI's clients see it.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func modelOf(agent string) model { return model{ID: agent, Object: "model", OwnedBy: "gateway"} }

func (o *Endpoints) ListModels(w http.ResponseWriter, _ *http.Request, b *api.Backend) error {
	list := struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{Object: "list", Data: []model{}}
	for _, agent := range b.Agents {
		list.Data = append(list.Data, modelOf(agent))
	}
	return api.Reply(w, http.StatusOK, list)
}

func (o *Endpoints) ShowModel(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	agent, err := agentFor(b, r.PathValue("model"))
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, modelOf(agent))
}
