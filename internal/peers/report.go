//go:build linux

package main

import (
	"context"
	"io"
)

type surroundings struct{}

func lookAround(context.Context) (surroundings, error) { return surroundings{}, nil }

func report(io.Writer, load, int, surroundings, []contender, [][]float64) error { return nil }
