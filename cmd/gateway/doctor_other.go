//go:build !linux

package main

// networkFileSystem knows none here.
func networkFileSystem(string) string { return "" }
