package daemon

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThePageAboutTurnsHasTheTimeOfACancelledTurn(t *testing.T) {
	page, err := os.ReadFile("../../docs/turns.md")
	require.NoError(t, err)
	require.Contains(t, string(page), "| a client cancels it | is told to end | "+cancelGrace.String()+" |")
}
