package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"gateway/server/carry"
)

// documentLimit bounds the document, in bytes. It is above what clients can have sent without an answer: the bodies and
// heads of all connections, in base64. A larger document is a restart that fails.
const documentLimit = 1 << 30

// document is a hand-over as it travels: open files are numbers of descriptors, -1 for none. The two gateways may be of
// different releases, so fields are only ever added. It owns its descriptors.
type document struct {
	About
	Lock     int            `json:"lock"`
	Listener int            `json:"listener"`
	Socket   int            `json:"socket"`
	Conns    []documentConn `json:"conns"`
}

// documentConn is a carried connection and its descriptor.
type documentConn struct {
	FD int `json:"fd"`
	carry.Connection
}

// parcel is a document and the file that it travels in.
type parcel struct {
	doc  *document
	file *os.File
}

// pack duplicates what is passed, with F_DUPFD for a new image or F_DUPFD_CLOEXEC for another process. On an error
// nothing is left open.
func (h *Handover) pack(how int) (*parcel, error) {
	doc, err := h.document(how)
	if err != nil {
		return nil, err
	}
	f, err := doc.file()
	if err != nil {
		doc.drop()
		return nil, err
	}
	return &parcel{doc, f}, nil
}

// descriptors lists that of the file, then those of the document.
func (p *parcel) descriptors() []int { return append([]int{int(p.file.Fd())}, p.doc.descriptors()...) }

// drop closes the duplicates and the file.
func (p *parcel) drop() {
	p.doc.drop()
	_ = p.file.Close()
}

func (h *Handover) document(how int) (*document, error) {
	doc := &document{About: h.About, Lock: -1, Listener: -1, Socket: -1}
	var errs error
	for _, part := range []struct {
		fd   *int
		conn syscall.Conn
	}{{&doc.Lock, h.Lock}, {&doc.Listener, h.Listener}, {&doc.Socket, h.Socket}} {
		if part.conn != nil && errs == nil {
			*part.fd, errs = duplicate(part.conn, how)
		}
	}
	for _, c := range h.Conns {
		if conn, ok := c.Conn.(syscall.Conn); ok && errs == nil {
			var fd int
			if fd, errs = duplicate(conn, how); errs == nil {
				doc.Conns = append(doc.Conns, documentConn{FD: fd, Connection: c})
			}
		}
	}
	if errs != nil {
		doc.drop()
		return nil, errs
	}
	return doc, nil
}

// open makes connections of the descriptors, and closes those that are none.
func (d *document) open() (conns []carry.Connection, err error) {
	for _, c := range d.Conns {
		f := os.NewFile(uintptr(c.FD), "carried connection")
		nc, failed := net.FileConn(f)
		_ = f.Close()
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		c.Conn = nc
		conns = append(conns, c.Connection)
	}
	return conns, err
}

// places lists where the numbers of the descriptors stand, in the order in which the descriptors travel.
func (d *document) places() (fds []*int) {
	for _, fd := range []*int{&d.Lock, &d.Listener, &d.Socket} {
		if *fd >= 0 {
			fds = append(fds, fd)
		}
	}
	for i := range d.Conns {
		fds = append(fds, &d.Conns[i].FD)
	}
	return fds
}

func (d *document) descriptors() (fds []int) {
	for _, fd := range d.places() {
		fds = append(fds, *fd)
	}
	return fds
}

// renumber writes the descriptors' numbers in this process into the document.
func (d *document) renumber(fds []int) error {
	places := d.places()
	if len(fds) != len(places) {
		return fmt.Errorf("handoff: %d descriptors for %d places", len(fds), len(places))
	}
	for i, place := range places {
		*place = fds[i]
	}
	return nil
}

// drop closes the descriptors.
func (d *document) drop() { drop(d.descriptors()...) }

// file writes the document to an anonymous file.
func (d *document) file() (*os.File, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("handoff: document: %w", err)
	}
	if len(b) > documentLimit {
		return nil, fmt.Errorf("handoff: the document is larger than %d bytes", documentLimit)
	}
	f, err := memoryFile()
	if err != nil {
		return nil, fmt.Errorf("handoff: document: %w", err)
	}
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("handoff: document: %w", err)
	}
	return f, nil
}

// readDocument reads a document and closes the file.
func readDocument(f *os.File) (*document, error) {
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("handoff: document: %w", err)
	}
	var doc document
	if err := json.NewDecoder(io.LimitReader(f, documentLimit)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("handoff: document: %w", err)
	}
	return &doc, nil
}

// received reads a document whose descriptors came over the link, the first of which is the document's own.
func received(fds []int) (*document, error) {
	if len(fds) == 0 {
		return nil, errors.New("handoff: no document")
	}
	doc, err := readDocument(os.NewFile(uintptr(fds[0]), "hand-over"))
	if err == nil {
		err = doc.renumber(fds[1:])
	}
	if err != nil {
		drop(fds[1:]...)
		return nil, err
	}
	return doc, nil
}

// duplicate duplicates the descriptor of a file, listener or connection. How is F_DUPFD, and then the duplicate
// survives an exec, or F_DUPFD_CLOEXEC.
func duplicate(c syscall.Conn, how int) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("handoff: duplicating a descriptor: %w", err)
	}
	dup := -1
	var failed error
	err = raw.Control(func(fd uintptr) { dup, failed = unix.FcntlInt(fd, how, 3) }) // Fd() would change its mode
	if err := errors.Join(err, failed); err != nil {
		return -1, fmt.Errorf("handoff: duplicating a descriptor: %w", err)
	}
	return dup, nil
}

// drop closes descriptors, and passes over those that are none.
func drop(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
