package daemon

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/handoff"
)

// Each role × occasion is decided once.
func TestEveryRoleDecidesEveryOccasion(t *testing.T) {
	roles := []role{fresh, nextImage, candidate, owner, handedOver}
	occasions := []occasion{lockTaken, serveReceived, serveSent}
	require.Len(t, roleMoves, len(roles)*len(occasions))
	for _, from := range roles {
		for _, on := range occasions {
			var rows int
			for _, m := range roleMoves {
				if m.from != from || m.on != on {
					continue
				}
				rows++
				require.NotEmpty(t, m.why, "%s × %s", from, on)
				to, err := from.next(on)
				if m.to == "" {
					require.ErrorContains(t, err, string(on))
					require.Equal(t, from, to, "nothing changes")
					continue
				}
				require.NoError(t, err)
				require.Equal(t, m.to, to)
				require.Contains(t, roles, to)
			}
			require.Equal(t, 1, rows, "%s × %s", from, on)
		}
	}
}

func TestAProcessBeginsInTheRoleThatItArrivedIn(t *testing.T) {
	require.Equal(t, fresh, Arrival{}.role())
	require.Equal(t, nextImage, Arrival{Inherited: &handoff.Inherited{}}.role())
	require.Equal(t, candidate, Arrival{Inherited: &handoff.Inherited{}, Predecessor: &handoff.Predecessor{}}.role())
}
