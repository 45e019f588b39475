package config

import (
	_ "embed"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// hidden stands for a secret that is set.
const hidden = "(set)"

//go:embed template.yaml
var template []byte

// Template is a commented file with every key. As it stands it changes nothing.
func Template() []byte { return slices.Clone(template) }

// Redacted is a copy that may be shown: secrets only say that they are set. The variables of an agent's
// environment count as secrets.
func (c Config) Redacted() Config {
	hide := func(s string) string {
		if s == "" {
			return ""
		}
		return hidden
	}
	c.Auth.Token = hide(c.Auth.Token)
	c.Auth.Clients = maps.Clone(c.Auth.Clients)
	for name, client := range c.Auth.Clients {
		client.Token = hide(client.Token)
		c.Auth.Clients[name] = client
	}
	c.Agents = maps.Clone(c.Agents)
	for name, a := range c.Agents {
		a.APIKey = hide(a.APIKey)
		if u, err := url.Parse(a.BaseURL); err == nil && u.User != nil {
			a.BaseURL = u.Redacted()
		}
		a.Env = maps.Clone(a.Env)
		for k, v := range a.Env {
			a.Env[k] = hide(v)
		}
		c.Agents[name] = a
	}
	return c
}

// Show renders the configuration in force, without secrets, each key that is not at its default with its
// origin. It is valid YAML.
func (l Loaded) Show() ([]byte, error) {
	comments := make(yaml.CommentMap)
	for path, origin := range l.Origins {
		if strings.HasSuffix(path, ".command") || strings.HasSuffix(path, ".scopes") { // the encoder puts a list's comment behind its key
			continue
		}
		comments["$."+path] = []*yaml.Comment{yaml.LineComment(" " + origin)}
	}
	b, err := yaml.MarshalWithOptions(l.Config.Redacted(), yaml.WithComment(comments), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil { // a path that the encoder does not know: without origins it is still right
		if b, err = yaml.Marshal(l.Config.Redacted()); err != nil {
			return nil, fmt.Errorf("config: showing: %w", err)
		}
	}
	from := "no file was read"
	if l.File != "" {
		from = "from " + l.File
	}
	return append([]byte("# "+from+"; values without an origin are defaults\n"), b...), nil
}

// Document is the configuration in force without secrets, under the keys of the file, for programs.
func (l Loaded) Document() (map[string]any, error) {
	b, err := yaml.Marshal(l.Config.Redacted())
	if err != nil {
		return nil, fmt.Errorf("config: showing: %w", err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(b, &values); err != nil {
		return nil, fmt.Errorf("config: showing: %w", err)
	}
	return map[string]any{"file": l.File, "config": values, "origins": l.Origins}, nil
}
