package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	minToken = 8
	// tokenLimit bounds the file of a token, in bytes.
	tokenLimit = 4 << 10
	newToken   = "openssl rand -hex 32" //nolint:gosec // a command that makes one
)

// Auth guards the TCP listener. The control socket in the state folder needs no token. The zero value asks for none,
// which only a loopback address allows.
type Auth struct {
	// Token is asked for as a bearer token; who has it may do everything.
	Token string `yaml:"token" env:"TOKEN"`
	// TokenFile is a file that holds it instead. Absolute once loaded.
	TokenFile string `yaml:"token_file" env:"TOKEN_FILE"`
	// Clients by name have tokens of their own, each with only its scopes.
	Clients map[string]Client `yaml:"clients,omitempty"`
}

// On reports whether a token is required of everyone.
func (a Auth) On() bool { return a.Token != "" || a.TokenFile != "" || len(a.Clients) > 0 }

// Client is who has a token with less than all scopes.
type Client struct {
	Token     string `yaml:"token,omitempty"`
	TokenFile string `yaml:"token_file,omitempty"` // absolute once loaded
	// Scopes are read, write and admin. Write contains read, and admin both.
	Scopes []string `yaml:"scopes,flow"`
}

var scopes = []string{"read", "write", "admin"}

// auth quotes no name that is none: it may be a token whose key is missing.
func (v *validator) auth(a Auth) {
	v.token("auth", a.Token, a.TokenFile)
	for _, name := range slices.Sorted(maps.Keys(a.Clients)) {
		c, key := a.Clients[name], "auth.clients."+name
		if !isName(name) || c.Token == "" && c.TokenFile == "" && len(c.Scopes) == 0 {
			v.add("auth.clients", "this is not the name of a client with its keys", "clients: { NAME: { token_file: FILE, scopes: [read] } }; a name has letters, digits, dot, dash and underscore")
			continue
		}
		v.token(key, c.Token, c.TokenFile)
		if c.Token == "" && c.TokenFile == "" {
			v.add(key, "the client has no token", "token_file: FILE, or token: … from: "+newToken)
		}
		if len(c.Scopes) == 0 {
			v.add(key+".scopes", "the client has no scopes", "scopes: [read], [write] or [admin]; each contains the ones before it")
		}
		for _, scope := range c.Scopes {
			v.choice(key+".scopes", scope, scopes...)
		}
	}
}

// token checks the token of a section, or that there is only a file of it.
func (v *validator) token(section, token, file string) {
	if token != "" && file != "" {
		v.add(section+".token_file", "token and token_file are both set", "only one of token and token_file")
	} else if wrong := tokenFault(token); token != "" && wrong != "" {
		v.add(section+".token", wrong, "auth: { token: … } from: "+newToken)
	}
}

// tokenFault says what is wrong with a token, without quoting it; empty when nothing is.
func tokenFault(token string) string {
	switch {
	case !utf8.ValidString(token), strings.ContainsFunc(token, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "the token has unprintable characters, such as a line break"
	case strings.TrimSpace(token) != token:
		return "the token begins or ends with a space"
	case len(token) < minToken:
		return fmt.Sprintf("shorter than %d characters", minToken)
	}
	return ""
}

// readTokens reads the files of tokens, so that what was checked is what runs.
func (r *reading) readTokens() {
	owners := make(map[string]string) // keys by token
	read := func(section, name, token, file string) {
		key := section + ".token"
		switch {
		case token != "" && file != "":
			return // the validation has said so
		case file != "":
			key += "_file"
			token = r.readToken(key, file)
		}
		if token == "" {
			return
		}
		if other, taken := owners[token]; taken {
			r.add(key, "this is also the token of "+other, "a token of its own, from: "+newToken)
			return
		}
		owners[token] = key
		r.Tokens[name] = token
	}
	a := r.Config.Auth
	read("auth", "", a.Token, a.TokenFile)
	for _, name := range slices.Sorted(maps.Keys(a.Clients)) {
		if isName(name) {
			read("auth.clients."+name, name, a.Clients[name].Token, a.Clients[name].TokenFile)
		}
	}
}

// readToken is what the file holds, without the line break at its end; empty once it was said what is wrong.
func (r *reading) readToken(key, path string) string {
	const nothingElse = "a file that holds the token and nothing else, from: " + newToken
	text, err := readLimited(path, tokenLimit)
	token := strings.TrimSuffix(string(text), "\n")
	switch wrong := tokenFault(token); {
	case errors.Is(err, fs.ErrNotExist):
		r.add(key, "there is no file "+path, "(umask 077; "+newToken+" > "+path+"); relative paths begin at the folder of the configuration file")
	case err != nil:
		r.add(key, err.Error(), "a file that the gateway may read: ls -l "+path)
	case len(text) > tokenLimit:
		r.add(key, fmt.Sprintf("%s is larger than %s", path, Bytes(tokenLimit)), nothingElse)
	case token == "":
		r.add(key, path+" is empty", nothingElse)
	case wrong != "":
		r.add(key, path+": "+wrong, nothingElse)
	default:
		return token
	}
	return ""
}

// tokenWarnings are the files of tokens that neighbours on the machine could read.
func (l Loaded) tokenWarnings() (found Problems) {
	files := map[string]string{"auth.token_file": l.Config.Auth.TokenFile}
	for name, c := range l.Config.Auth.Clients {
		files["auth.clients."+name+".token_file"] = c.TokenFile
	}
	for _, key := range slices.Sorted(maps.Keys(files)) {
		found = append(found, l.openToAll(key, files[key])...)
	}
	return found
}

// openToAll warns of a secret's file that every user of the machine can open.
func (l Loaded) openToAll(key, path string) Problems {
	if path == "" {
		return nil
	}
	stat, err := os.Stat(path)
	if err != nil || stat.Mode().Perm()&0o007 == 0 {
		return nil //nolint:nilerr // a file that cannot be read is reported by who reads it
	}
	return Problems{{l.at(key), key, fmt.Sprintf("every user of this machine can open %s (mode %04o)", path, stat.Mode().Perm()), "chmod 600 " + path}}
}
