package handoff

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/server/carry"
	"golang.org/x/sys/unix"
)

// What 10,000 clients have sent may come to more than 64 MiB, and must not keep a gateway from being restarted.
func TestADocumentHoldsAllThatClientsMayHaveSent(t *testing.T) {
	doc := &document{About: About{BootID: "b", History: json.RawMessage("[]")}, Lock: -1, Listener: -1, Socket: -1}
	for range 10 {
		doc.Conns = append(doc.Conns, documentConn{FD: -1, Connection: carry.Connection{Unanswered: bytes.Repeat([]byte("x"), 8<<20)}})
	}
	f, err := doc.file()
	require.NoError(t, err)
	got, err := readDocument(f)
	require.NoError(t, err)
	require.Len(t, got.Conns, 10)
	require.Len(t, got.Conns[9].Unanswered, 8<<20)
}

// An upgrade is a hand-over between two releases.
func TestTheDocumentIsWhatOtherReleasesReadAndWrite(t *testing.T) {
	const text = `{"boot_id":"b","state_dir":"/state","listen_address":"127.0.0.1:1","activated":true,"history":[1],` +
		`"lock":3,"listener":4,"socket":-1,"conns":[{"fd":5,"local":true,"tls":true,"parted":true,"read":"eA=="},{"fd":6,"local":false,"read":""}]}`
	want := document{
		About: About{BootID: "b", StateDir: "/state", ListenAddress: "127.0.0.1:1", Activated: true, History: json.RawMessage("[1]")},
		Lock:  3, Listener: 4, Socket: -1,
		Conns: []documentConn{
			{FD: 5, Connection: carry.Connection{Local: true, TLS: true, CloseSent: true, Unanswered: []byte("x")}},
			{FD: 6, Connection: carry.Connection{Unanswered: []byte{}}},
		},
	}
	var read document
	require.NoError(t, json.Unmarshal([]byte(text), &read))
	require.Equal(t, want, read)
	written, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, text, string(written))
}

func TestAHandOverThatCannotBeMadeLeavesNothingOpen(t *testing.T) {
	clients, carried := pairs(t, 2, "request")
	require.NoError(t, carried[1].Close())
	_, err := (&Handover{Conns: carried}).pack(unix.F_DUPFD_CLOEXEC)
	require.ErrorContains(t, err, "duplicating a descriptor")
	require.NoError(t, carried[0].Close())
	require.NoError(t, clients[0].SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = clients[0].Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "no duplicate keeps the connection open")
}
