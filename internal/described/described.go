// Package described holds what goes over HTTP against the description of the API. Only tests import it.
//
// The invariant: an answer that passed is one that the description tells of, down to its last member. The
// description leaves room for members to come; the check does not.
package described

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// API is a description.
type API struct {
	raw   []byte
	doc   any
	mux   *http.ServeMux // finds the operation of a request, by the patterns that the gateway routes by
	exact *jsonschema.Compiler
	open  *jsonschema.Compiler

	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
	seen     map[string]bool
}

const resource = "api.json"

// Parse reads a description, as JSON.
func Parse(raw []byte) (*API, error) {
	a := &API{
		raw: raw, mux: http.NewServeMux(), exact: jsonschema.NewCompiler(), open: jsonschema.NewCompiler(),
		compiled: make(map[string]*jsonschema.Schema), seen: make(map[string]bool),
	}
	var err error
	if a.doc, err = jsonschema.UnmarshalJSON(bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("described: %w", err)
	}
	tight, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("described: %w", err)
	}
	tighten(tight)
	for c, doc := range map[*jsonschema.Compiler]any{a.exact: tight, a.open: a.doc} {
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		if err := c.AddResource(resource, doc); err != nil {
			return nil, fmt.Errorf("described: %w", err)
		}
	}
	for _, operation := range a.Operations() {
		a.mux.HandleFunc(operation, func(http.ResponseWriter, *http.Request) {})
	}
	return a, nil
}

// tighten closes every object whose members are described.
func tighten(node any) {
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			tighten(child)
		}
	case map[string]any:
		for _, child := range n {
			tighten(child)
		}
		_, members := n["properties"].(map[string]any)
		if _, said := n["additionalProperties"]; members && !said && ofObject(n["type"]) {
			n["additionalProperties"] = false
		}
	}
}

func ofObject(kind any) bool {
	several, _ := kind.([]any)
	return kind == "object" || slices.Contains(several, any("object"))
}

// Validate says whether the description is one of OpenAPI.
func (a *API) Validate(ctx context.Context) error {
	doc, err := openapi3.NewLoader().LoadFromData(a.raw)
	if err != nil {
		return fmt.Errorf("described: %w", err)
	}
	return doc.Validate(ctx, openapi3.EnableSchemaPatternValidation(), openapi3.EnableExamplesValidation())
}

// Operations are the methods and paths, as patterns of [http.ServeMux], sorted.
func (a *API) Operations() (all []string) {
	paths, _ := a.at("paths").(map[string]any)
	for path, item := range paths {
		if path == "/" {
			path = "/{$}"
		}
		for method := range item.(map[string]any) {
			if method = strings.ToUpper(method); slices.Contains(methods, method) {
				all = append(all, method+" "+path)
			}
		}
	}
	slices.Sort(all)
	return all
}

var methods = []string{"GET", "PUT", "POST", "DELETE", "PATCH"}

// Role is the scope that an operation asks a token for; empty for none.
func (a *API) Role(operation string) (role string) {
	wanted, ok := a.at(append(place(operation), "security")...).([]any)
	if !ok {
		wanted, _ = a.at("security").([]any)
	}
	for _, one := range wanted {
		scheme, _ := one.(map[string]any)
		roles, _ := scheme["token"].([]any)
		for _, r := range roles {
			role += r.(string)
		}
	}
	return role
}

// Codes are the codes of errors: all, and those that a status may have.
func (a *API) Codes() (all []string, byStatus map[string][]string) {
	texts := func(list any) (out []string) {
		entries, _ := list.([]any)
		for _, entry := range entries {
			out = append(out, entry.(string))
		}
		return out
	}
	all = texts(a.at("components", "schemas", "ErrorBody", "properties", "code", "enum"))
	byStatus = make(map[string][]string)
	answers, _ := a.at("components", "responses").(map[string]any)
	for name := range answers {
		byStatus[name] = texts(a.at("components", "responses", name, "content", "application/json", "schema", "allOf", "1",
			"properties", "error", "properties", "code", "enum"))
	}
	return all, byStatus
}

// at walks down the description; nil where there is nothing.
func (a *API) at(path ...string) any {
	node := a.doc
	for _, step := range path {
		switch n := node.(type) {
		case map[string]any:
			node = n[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(n) {
				return nil
			}
			node = n[i]
		default:
			return nil
		}
	}
	return node
}

// resolve is the path of what is there, behind a reference.
func (a *API) resolve(path ...string) []string {
	if node, ok := a.at(path...).(map[string]any); ok {
		if ref, ok := node["$ref"].(string); ok {
			return pointer(ref)
		}
	}
	return path
}

func pointer(ref string) []string { return strings.Split(strings.TrimPrefix(ref, "#/"), "/") }

// schema compiles the schema at a path, once.
func (a *API) schema(exact bool, path ...string) (*jsonschema.Schema, error) {
	path = slices.Clone(path)
	for i, step := range path {
		path[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(step)
	}
	at, compiler := resource+"#/"+strings.Join(path, "/"), a.open
	if exact {
		compiler = a.exact
	}
	key := fmt.Sprint(exact, at)
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.compiled[key]; s != nil {
		return s, nil
	}
	s, err := compiler.Compile(at)
	if err != nil {
		return nil, fmt.Errorf("described: %w", err)
	}
	a.compiled[key] = s
	return s, nil
}

func (a *API) validate(exact bool, raw []byte, path ...string) error {
	s, err := a.schema(exact, path...)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("described: %w: %s", err, raw)
	}
	if err := s.Validate(value); err != nil {
		return fmt.Errorf("described: %w\n%s", err, raw)
	}
	return nil
}

func (a *API) saw(what ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[strings.Join(what, " ")] = true
}

// Unseen are the answers of success, by operation, status, media type and event, that no answer was like.
// Operations in except are left out.
func (a *API) Unseen(except ...string) (missing []string) {
	wanted := make(map[string]bool)
	for _, operation := range a.Operations() {
		if slices.Contains(except, operation) {
			continue
		}
		answers, _ := a.at(append(place(operation), "responses")...).(map[string]any)
		for status := range answers {
			if status[0] != '2' {
				continue
			}
			path := a.resolve(append(place(operation), "responses", status)...)
			content, _ := a.at(append(path, "content")...).(map[string]any)
			if len(content) == 0 {
				wanted[operation+" "+status] = true
			}
			for media := range content {
				wanted[operation+" "+status+" "+media] = true
				events, _ := a.at(append(path, "content", media, "x-events")...).(map[string]any)
				for name := range events {
					wanted[operation+" "+status+" "+media+" "+name] = true
				}
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(wanted)) {
		if !a.seen[what] {
			missing = append(missing, what)
		}
	}
	return missing
}

// place is where an operation is described.
func place(operation string) []string {
	method, path, _ := strings.Cut(operation, " ")
	return []string{"paths", strings.TrimSuffix(path, "{$}"), strings.ToLower(method)}
}
