package server

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"

	"gateway/server/api"
	"gateway/server/carry"
	"gateway/server/openclaw"
)

// The page is a client like any other: it has nothing but the public API. So it needs no token to be shown, and shows
// nothing without one.
//
//go:embed page/*.html page/*.css page/*.js page/*.svg
var pageFiles embed.FS

// pageFile is a file of the page, as it is sent.
type pageFile struct {
	kind   string // its content type
	etag   string
	packed []byte // by gzip
	plain  []byte
}

// kinds are what the files are. The tables of the system know other names for some.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// pictures are the pictures of the states, by where they go in the page. Within the page their parts can be marked.
var pictures = map[string]string{"<!-- the states -->": "page/states.svg", "<!-- the states, upright -->": "page/states-upright.svg"}

var page = sync.OnceValues(func() (map[string]pageFile, error) {
	files := make(map[string]pageFile)
	names, err := fs.Glob(pageFiles, "page/*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		plain, err := pageFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for mark, picture := range pictures {
			svg, err := pageFiles.ReadFile(picture)
			if err != nil {
				return nil, err
			}
			plain = bytes.Replace(plain, []byte(mark), svg, 1)
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(plain); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(plain)
		files[path.Base(name)] = pageFile{
			kind: kinds[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:8]) + `"`,
			packed: packed.Bytes(), plain: plain,
		}
	}
	return files, nil
})

// isPage reports whether the request is for the page itself, which is the same for everyone.
func isPage(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && !isUpgrade(r) &&
		(r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/page/"))
}

// home is the page, or a WebSocket.
func (s *Server) home(w http.ResponseWriter, r *http.Request) error {
	if isUpgrade(r) {
		s.gated(func(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
			from := openclaw.Origin{Host: hostOf(r), Trusted: trusted(r.Context())}
			if c := carry.Of(r.Context()); c != nil {
				from.Under = c
			}
			return s.hub.Open(w, r, b, from)
		})(w, r)
		return nil
	}
	return s.sendPage(w, r, "index.html")
}

func (s *Server) showPageFile(w http.ResponseWriter, r *http.Request) error {
	return s.sendPage(w, r, r.PathValue("file"))
}

func (s *Server) sendPage(w http.ResponseWriter, r *http.Request, name string) error {
	files, err := page()
	if err != nil {
		return fmt.Errorf("server: the page: %w", err)
	}
	f, ok := files[name]
	if !ok {
		return api.NotFound("not_found", "", "the page has no file %q. Try: GET /", name)
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache") // asked for again, and not sent again: after an upgrade nothing is of two versions
	h.Set("Vary", "Accept-Encoding")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.packed
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(body)
	return err
}

// showConfig is the configuration in force, without secrets, and where each value comes from.
func (s *Server) showConfig(w http.ResponseWriter, _ *http.Request, b *api.Backend) error {
	if b.Config == nil {
		return api.Reply(w, http.StatusOK, nil)
	}
	shown, err := b.Config()
	if err != nil {
		return fmt.Errorf("server: the configuration: %w", err)
	}
	return api.Reply(w, http.StatusOK, shown)
}
