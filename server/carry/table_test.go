package carry

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheTableIsWhole(t *testing.T) {
	table := Lifecycle()
	require.NoError(t, table.Check())
	t.Logf("%d phases × %d occurrences: %d cells in %d rows", phases, occurrences, phases*occurrences, len(table.Cells))
}

// One row of a cell holds for each set of facts, whatever the order of the rows.
func TestOneRowDecides(t *testing.T) {
	for p := range Phase(phases) {
		for o := range Occurrence(occurrences) {
			for f := range allFacts + 1 {
				cell := decided[p][o][f]
				require.NotNil(t, cell)
				require.True(t, cell.When.holds(f))
				for _, other := range Lifecycle().Cells {
					if other.Phase == p && other.Occurrence == o && other.When != cell.When && other.When.holds(f) {
						require.Equal(t, Otherwise, other.When, "%s × %s", p, o)
					}
				}
			}
		}
	}
}

func TestCheckFindsEveryKindOfMistake(t *testing.T) {
	at := func(t *Table, p Phase, o Occurrence) *Cell {
		for i := range t.Cells {
			if t.Cells[i].Phase == p && t.Cells[i].Occurrence == o {
				return &t.Cells[i]
			}
		}
		return nil
	}
	for name, c := range map[string]struct {
		spoil func(*Table)
		says  string
	}{
		"a removed cell":    {func(t *Table) { t.Cells = t.Cells[1:] }, "is blank"},
		"a doubled cell":    {func(t *Table) { t.Cells = append(t.Cells, t.Cells[0]) }, "decided more than once"},
		"half a guard":      {func(t *Table) { at(t, New, Read).When = WhenCarrying }, `decided "carrying" only`},
		"no reason":         {func(t *Table) { t.Cells[0].Why = "" }, "does not say why"},
		"an unknown kind":   {func(t *Table) { t.Cells[0].Kind = "maybe" }, "unknown kind"},
		"an unknown action": {func(t *Table) { t.Cells[0].Do = []Action{"dance"} }, "not declared"},
		"a self edge":       {func(t *Table) { t.Cells[0].To = New }, "leads to itself"},
		"a way out of Carried": {func(t *Table) {
			*at(t, Carried, Begin) = Cell{Carried, Begin, Always, Transition, Serving, nil, 0, 0, "x"}
		}, "leaves a final phase"},
		"carried, but not so":    {func(t *Table) { at(t, Serving, GiveUp).Do = nil }, "by nothing else"},
		"closed, but not so":     {func(t *Table) { at(t, Serving, Close).Do = nil }, "by nothing else"},
		"nothing that is inside": {func(t *Table) { at(t, New, Ended).Sets = 0 }, "is internal"},
		"a change that is none":  {func(t *Table) { at(t, Upgraded, Read).Sets = Gone }, "but changes something"},
		"a write that hangs":     {func(t *Table) { at(t, Serving, Write).Do = []Action{Keep} }, "0 answers to what is asked"},
		"a close that is missed": {func(t *Table) { *at(t, Sealed, Close) = Cell{Sealed, Close, Always, Ignored, Sealed, nil, 0, 0, "x"} }, "does not end the connection"},
		"an unreachable phase": {func(t *Table) {
			*at(t, Serving, Upgrade) = Cell{Serving, Upgrade, Always, Ignored, Serving, nil, 0, 0, "x"}
		}, "cannot be reached"},
		"a phase out of place":        {func(t *Table) { t.Phases[0], t.Phases[1] = t.Phases[1], t.Phases[0] }, "stands at place"},
		"a phase without words":       {func(t *Table) { t.Phases[0].Means = "" }, "does not say what it means"},
		"an occurrence without words": {func(t *Table) { t.Occurrences[0].Raised = "" }, "does not say who raises it"},
		"a phase too few":             {func(t *Table) { t.Phases = t.Phases[1:] }, "are described"},
	} {
		t.Run(name, func(t *testing.T) {
			table := Lifecycle()
			c.spoil(&table)
			require.ErrorContains(t, table.Check(), c.says)
		})
	}
}
