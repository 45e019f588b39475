// Command benchpage turns one run of benchmarks into a page of their figures.
//
//	go test -bench . ./… | go run ./internal/benchpage page.md.tmpl > page.md
//
// The invariant: every figure on the page is of that run. A page that asks for one that the run does not have is
// not written.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchpage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("want one template, and the output of go test -bench on standard input")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	m, err := read(os.Stdin)
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := m.write(&page, string(text), time.Now()); err != nil {
		return err
	}
	_, err = page.WriteTo(os.Stdout)
	return err
}
