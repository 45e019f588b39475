package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxAliases bounds how many anchors and aliases stand between a key and its value.
const maxAliases = 16

var errFraction = errors.New("config: a fraction")

// keyForm is what a key of the configuration may look like. What looks different is not quoted back: it may
// be a secret whose colon or space is missing.
var keyForm = regexp.MustCompile(`^[A-Za-z_-]+$`)

const maxKey = 40

// decode merges a file over the defaults, leaf by leaf, so that one mistake hides no other. What is said of
// a mistake is its place, its key and what belongs there; the lines around it may hold secrets.
func (r *reading) decode(text []byte) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		r.broken(err)
		return
	}
	if len(file.Docs) > 1 {
		r.problems = append(r.problems, Problem{At: r.File, What: fmt.Sprintf("the file holds %d documents", len(file.Docs)), Try: "keep one, and drop the lines ---"})
		return
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		d := decoder{r, make(map[string]ast.Node)}
		for _, n := range ast.Filter(ast.AnchorType, doc) {
			if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
				d.anchors[a.Name.GetToken().Value] = a.Value
			}
		}
		d.merge("", doc.Body, reflect.ValueOf(&r.Config).Elem())
	}
}

// broken says where a file is no YAML.
func (r *reading) broken(err error) {
	p := Problem{At: r.File, What: "this is not valid YAML", Try: "gateway config init EXAMPLE.yaml, for a commented example of every key"}
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil {
		p.At += ":" + place(at.GetToken())
		p.What += ": " + at.GetMessage()
	}
	r.problems = append(r.problems, p)
}

func place(t *token.Token) string {
	return fmt.Sprintf("%d:%d", t.Position.Line, t.Position.Column)
}

type decoder struct {
	*reading
	anchors map[string]ast.Node
}

// merge decodes a node over a value. A node that says nothing leaves the value as it is.
func (d *decoder) merge(path string, n ast.Node, v reflect.Value) {
	n = d.resolve(path, n)
	if n == nil || n.Type() == ast.NullType || n.Type() == ast.CommentType {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, e := range d.entries(path, n) {
			if field, ok := fieldOf(v, e.key); ok {
				d.merge(e.path, e.value, field)
			} else {
				d.unknown(path, e, v.Type())
			}
		}
	case reflect.Map:
		for _, e := range d.entries(path, n) {
			elem := reflect.New(v.Type().Elem()).Elem()
			d.merge(e.path, e.value, elem)
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			v.SetMapIndex(reflect.ValueOf(e.key), elem)
		}
	case reflect.Slice:
		list, ok := n.(*ast.SequenceNode)
		d.found(path, n)
		if !ok {
			d.add(path, "a list is expected, not "+kind(n), "[first, second]")
			return
		}
		items := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
		for i, item := range list.Values {
			d.merge(path, item, items.Index(i)) // what is wrong with an item is said with its own place
		}
		d.found(path, n)
		v.Set(items)
	default:
		d.found(path, n)
		d.scalar(path, n, v)
	}
}

// found notes where a key got its value.
func (d *decoder) found(path string, n ast.Node) {
	d.Origins[path] = "file:" + strconv.Itoa(n.GetToken().Position.Line)
	d.places[path] = place(n.GetToken())
}

// scalar decodes a node that is one value. Only what belongs to no secret is quoted back, and a secret is
// text, for which any value will do.
func (d *decoder) scalar(path string, n ast.Node, v reflect.Value) {
	want := expected(v.Type())
	if _, ok := n.(ast.ScalarNode); !ok {
		d.add(path, want.what+" is expected, not "+kind(n), want.try)
		return
	}
	text := n.GetToken().Value // as it was written: 0123 is no octal number where text is expected
	if literal, ok := n.(*ast.LiteralNode); ok {
		text = literal.Value.Value
	}
	var err error
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *time.Duration:
		*p, err = time.ParseDuration(text)
	case encoding.TextUnmarshaler:
		err = p.UnmarshalText([]byte(text))
	default:
		if err = yaml.NodeToValue(n, p); err == nil && n.Type() == ast.FloatType {
			err = errFraction
		}
	}
	if err != nil {
		d.add(path, strconv.Quote(text)+" is not "+want.what, want.try)
	}
}

// entry is one key of a mapping.
type entry struct {
	key, path string
	at        *token.Token
	value     ast.Node
}

// entries lists the keys of a mapping; what it merges from others comes behind its own, which win.
func (d *decoder) entries(path string, n ast.Node) (all []entry) {
	seen := make(map[ast.Node]bool)
	names := make(map[string]bool)
	var collect func(n ast.Node)
	collect = func(n ast.Node) {
		n = d.resolve(path, n)
		var values []*ast.MappingValueNode
		switch n := n.(type) {
		case *ast.MappingNode:
			values = n.Values
		case *ast.MappingValueNode:
			values = []*ast.MappingValueNode{n}
		case *ast.SequenceNode:
			if len(seen) > 0 && !seen[n] { // a merge key may name several
				seen[n] = true
				for _, v := range n.Values {
					collect(v)
				}
				return
			}
		}
		if values == nil && n != nil && n.Type() != ast.MappingType {
			d.places[path] = place(n.GetToken())
			d.add(path, "keys with values are expected, not "+kind(n), "key: value, or key: { key: value }")
			return
		}
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		var merged []ast.Node
		for _, v := range values {
			if v.Key.IsMergeKey() {
				merged = append(merged, v.Value)
				continue
			}
			e := entry{key: v.Key.GetToken().Value, at: v.Key.GetToken(), value: v.Value}
			if names[e.key] {
				continue
			}
			names[e.key] = true
			if e.path = e.key; path != "" {
				e.path = path + "." + e.key
			}
			d.places[e.path] = place(e.at)
			all = append(all, e)
		}
		for _, m := range merged {
			collect(m)
		}
	}
	collect(n)
	return all
}

// unknown refuses a key that its section does not have.
func (d *decoder) unknown(path string, e entry, section reflect.Type) {
	p := Problem{At: d.File + ":" + place(e.at), Key: e.path, What: "there is no such key", Try: strings.Join(keysOf(section), ", ")}
	if len(e.key) > maxKey || !keyForm.MatchString(e.key) || d.resolve(e.path, e.value) == nil || e.bare() {
		p.Key, p.What = path, "this is not a key with a value"
		p.Try = "key: value, with a space after the colon; keys are " + strings.Join(keysOf(section), ", ")
	}
	d.problems = append(d.problems, p)
}

// bare reports whether the key has no colon, as in { word }.
func (e entry) bare() bool { return e.at.Next == nil || e.at.Next.Type != token.MappingValueType }

// resolve follows anchors, aliases and tags to what they stand for at path; nil when that is nothing.
func (d *decoder) resolve(path string, n ast.Node) ast.Node {
	for range maxAliases {
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.AliasNode:
			to, ok := d.anchors[t.Value.GetToken().Value]
			if !ok {
				d.problems = append(d.problems, Problem{At: d.File + ":" + place(t.GetToken()), Key: path, What: "this alias has no anchor", Try: "the value itself, or &name before the value that it repeats"})
			}
			n = to
		case *ast.TagNode:
			n = t.Value
		default:
			return n
		}
	}
	return nil
}

// fieldOf finds the field of a section by its key.
func fieldOf(section reflect.Value, key string) (reflect.Value, bool) {
	for i := range section.NumField() {
		if yamlName(section.Type().Field(i)) == key {
			return section.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(section reflect.Type) []string {
	var names []string
	for f := range section.Fields() {
		if name := yamlName(f); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// yamlName is empty for a field that no file can set.
func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}

// kind names what a node is, for people.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	default:
		return "text"
	}
}

// expectation is what belongs where a value of some type stands.
type expectation struct{ what, try string }

func expected(t reflect.Type) expectation {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return expectation{"a duration with a unit", "a duration with a unit such as 30s, 500ms or 1h30m"}
	case t == reflect.TypeFor[Bytes]():
		return expectation{"a size", "a size such as 512KiB or 1MiB"}
	case t != nil && t.Kind() == reflect.Bool:
		return expectation{"true or false", "true, or false"}
	case t != nil && t.Kind() == reflect.Int:
		return expectation{"a whole number", "a whole number such as 4"}
	default:
		return expectation{"text", "text; in quotes when it begins with a sign"}
	}
}
