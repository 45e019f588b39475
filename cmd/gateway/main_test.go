package main

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	remove, err := buildBinary()
	if err != nil {
		fmt.Fprintln(os.Stderr, "building the program:", err)
		os.Exit(1)
	}
	code := m.Run()
	remove()
	os.Exit(code)
}
