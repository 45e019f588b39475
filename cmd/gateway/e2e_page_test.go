package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

const pageSize = 4096

// tryGet is get for what may be refused.
func (h *house) tryGet(path string) (status int, body []byte) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://gateway"+path, nil)
	require.NoError(h.t, err)
	resp, err := h.http.Do(req)
	require.NoError(h.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	return resp.StatusCode, body
}

// A torn page of a tree or an index, anywhere in the file, never causes a wrong answer: the start reports the damage, or
// each request whose answer needs the page does. All other requests are answered as before, a repeat never makes a second
// turn, and a backup restores everything.
//
// Pages that hold nothing but the rest of a long text are left out: SQLite keeps no checksum of a page, so a torn one
// is read as another text. That takes a file system with checksums.
func TestATornPageAnywhereIsNamedAndNeverAWrongAnswer(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	address := h.waitState("Running").Address
	var record history
	for i := range 60 {
		text := fmt.Sprintf("%d-%s", i, strings.Repeat("x", i%3*300))
		a, _, err := ask(t.Context(), http.DefaultClient, address, fmt.Sprintf("s%d", i%4), "echo", text, fmt.Sprint(i), false)
		require.NoError(t, err)
		record.acknowledged(a.ID, fmt.Sprintf("s%d", i%4), text)
	}
	h.judge(&record)
	answers := make(map[string][]byte)
	for _, p := range record.promises {
		for _, path := range []string{"/v1/turns/" + p.id, "/v1/turns/" + p.id + "/events", "/v1/turns?limit=1000&session=" + p.session} {
			_, answers[path] = h.tryGet(path)
		}
	}
	backup := filepath.Join(h.dir, "backup.db")
	out, stderr, code := h.gateway("backup", backup)
	require.Zero(t, code, "%s%s", out, stderr)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	whole, err := os.ReadFile(filepath.Join(h.state(), statedir.StoreFile))
	require.NoError(t, err)
	var pages []int
	for page := 1; page < len(whole)/pageSize; page++ {
		switch whole[page*pageSize] {
		case 2, 5, 10, 13: // the kinds of pages of a tree
			pages = append(pages, page)
		}
	}
	rand.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
	for n, page := range pages[:min(len(pages), envInt(t, "GATEWAY_TEST_PAGES", 10))] {
		t.Run(fmt.Sprint("page ", page+1), func(t *testing.T) {
			t.Parallel()
			torn := bytes.Clone(whole)
			fill := []string{"torn", "\x00\x00\x00\x00"}[n%2]
			copy(torn[page*pageSize:], strings.Repeat(fill, pageSize/len(fill)))
			h := newHouse(t, "")
			require.NoError(t, os.MkdirAll(h.state(), 0o700))
			store := filepath.Join(h.state(), statedir.StoreFile)
			require.NoError(t, os.WriteFile(store, torn, 0o600))
			h.launch()
			started := false
			h.eventually("it runs, or has ended", func() bool {
				s, err := h.status()
				started = err == nil && s.State == "Running"
				select {
				case <-h.exited:
					return true
				default:
					return started
				}
			})
			if started {
				damaged := 0
				for path, want := range answers {
					status, body := h.tryGet(path)
					if status == http.StatusOK {
						require.JSONEq(t, string(want), string(body), path)
						continue
					}
					damaged++
					requireDamaged(t, status, body)
				}
				refused := h.repeatAll(&record)
				t.Logf("%d of %d answers need the page, and %d of %d repeats", damaged, len(answers), refused, record.len())
				h.signal(syscall.SIGTERM)
				require.Equal(t, 0, h.wait())
			} else {
				t.Log("the start is refused")
				require.Equal(t, 1, h.wait())
				require.Contains(t, h.logged(), "damaged")
				require.Contains(t, h.logged(), "Try:")
			}
			good, err := os.ReadFile(backup)
			require.NoError(t, err)
			_ = os.Remove(store + "-wal")
			_ = os.Remove(store + "-shm")
			require.NoError(t, os.WriteFile(store, good, 0o600))
			h.start()
			h.judge(&record)
			h.signal(syscall.SIGTERM)
			require.Equal(t, 0, h.wait())
		})
	}
}

func requireDamaged(t *testing.T, status int, body []byte) {
	t.Helper()
	var doc struct {
		Error struct{ Code, Message string }
	}
	require.NoError(t, json.Unmarshal(body, &doc), "%s", body)
	require.Equal(t, http.StatusInternalServerError, status)
	require.Equal(t, "store_damaged", doc.Error.Code, "%s", body)
	require.Contains(t, doc.Error.Message, "Try:")
}

// repeatAll sends every request again: it gets the turn of the first time, or is refused.
func (h *house) repeatAll(record *history) (refused int) {
	h.t.Helper()
	s, err := h.status()
	require.NoError(h.t, err)
	for i, p := range record.promises {
		a, status, err := ask(h.t.Context(), http.DefaultClient, s.Address, p.session, "echo", p.want, fmt.Sprint(i), true)
		if err != nil {
			require.ErrorContains(h.t, err, "store_damaged")
			require.Equal(h.t, http.StatusInternalServerError, status)
			refused++
			continue
		}
		require.Equal(h.t, p.id, a.ID)
	}
	return refused
}
