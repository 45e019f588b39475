package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// pemLimit bounds the files of the certificate and of its key, in bytes.
const pemLimit = 1 << 20

// TLS names the files of the certificate that the TCP listener shows. The zero value listens without TLS.
type TLS struct {
	// Cert holds the certificate and those between it and its root, Key the private key; both PEM. Absolute
	// once loaded.
	Cert string `yaml:"cert" env:"CERT"`
	Key  string `yaml:"key" env:"KEY"`
}

// On reports whether the TCP listener speaks TLS.
func (t TLS) On() bool { return t != TLS{} }

// readCertificate reads the pair, so that what was checked is what runs.
func (r *reading) readCertificate() {
	t := r.Config.TLS
	if t.Cert == "" || t.Key == "" {
		return // none, or the validation has said what is missing
	}
	cert, ok := r.readPEM("tls.cert", t.Cert)
	key, alsoOK := r.readPEM("tls.key", t.Key)
	if !ok || !alsoOK {
		return
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // it names no content
		r.add("tls", fmt.Sprintf("%s and %s are not a certificate and its key: %v", t.Cert, t.Key, err),
			"the PEM files of one pair; compare: openssl x509 -noout -pubkey -in CERT, and openssl pkey -pubout -in KEY")
		return
	}
	r.Certificate = &pair
}

func (r *reading) readPEM(key, path string) ([]byte, bool) {
	text, err := readLimited(path, pemLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.add(key, "there is no file "+path, "the path of a PEM file; relative ones begin at the folder of the configuration file")
	case err != nil:
		r.add(key, err.Error(), "a PEM file that the gateway may read")
	case len(text) > pemLimit:
		r.add(key, fmt.Sprintf("%s is larger than %s", path, Bytes(pemLimit)), "the path of a PEM file")
	default:
		return text, true
	}
	return nil, false
}

// readLimited reads a regular file, and one byte more than the limit of one that is too large. A pipe would
// wait for a writer.
func readLimited(path string, limit int64) ([]byte, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// tlsWarnings are what clients or neighbours on the machine could make use of, or would stumble over.
func (l Loaded) tlsWarnings(now time.Time) (found Problems) {
	add := func(key, what, try string) { found = append(found, Problem{l.at(key), key, what, try}) }
	found = append(found, l.openToAll("tls.key", l.Config.TLS.Key)...)
	if l.Certificate != nil && l.Certificate.Leaf != nil {
		switch leaf := l.Certificate.Leaf; {
		case now.After(leaf.NotAfter):
			add("tls.cert", "the certificate expired on "+leaf.NotAfter.Format(time.DateOnly), "a new one, then gateway restart")
		case now.Before(leaf.NotBefore):
			add("tls.cert", "the certificate is valid only from "+leaf.NotBefore.Format(time.DateOnly), "wait, or check the clock")
		}
	}
	return found
}
