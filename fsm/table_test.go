package fsm

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheTableIsWhole(t *testing.T) {
	table := Lifecycle()
	require.NoError(t, table.Check())
	decided := make(map[[2]string]bool)
	for _, c := range table.Cells {
		decided[[2]string{string(c.State), string(c.Event)}] = true
	}
	require.Len(t, decided, len(table.States)*len(table.Events))
	t.Logf("%d states × %d events: %d cells in %d rows", len(table.States), len(table.Events), len(decided), len(table.Cells))
}

func TestCheckFindsEveryKindOfMistake(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Table)
		says  string
	}{
		"a removed cell":       {func(t *Table) { t.Cells = t.Cells[1:] }, "is blank"},
		"a doubled cell":       {func(t *Table) { t.Cells = append(t.Cells, t.Cells[0]) }, "decided twice"},
		"a misspelt target":    {func(t *Table) { t.Cells[0].To = "Runnning" }, "not declared"},
		"a misspelt effect":    {func(t *Table) { t.Cells[0].Effect = "opne" }, "not declared"},
		"a misspelt event":     {func(t *Table) { t.Cells[0].Event = "strated" }, "not declared"},
		"a misspelt state":     {func(t *Table) { t.Cells[0].State = "Startin" }, "not declared"},
		"an unknown kind":      {func(t *Table) { t.Cells[0].Kind = "maybe" }, "unknown kind"},
		"an unknown initial":   {func(t *Table) { t.Initial = "Boot" }, "not declared"},
		"a self edge":          {func(t *Table) { t.Cells[0].To = Starting }, "leads to itself"},
		"no reason":            {func(t *Table) { t.Cells[0].Why = "" }, "does not say why"},
		"a state twice":        {func(t *Table) { t.States = append(t.States, t.States[0]) }, "declared twice"},
		"an event twice":       {func(t *Table) { t.Events = append(t.Events, t.Events[0]) }, "declared twice"},
		"an effect twice":      {func(t *Table) { t.Effects = append(t.Effects, t.Effects[0]) }, "declared twice"},
		"an unreachable state": {func(t *Table) { set(t, Running, Restart, Ignored) }, "cannot be reached"},
		"a blank guard":        {func(t *Table) { t.Cells = slices.DeleteFunc(t.Cells, isClosed(IntentStop)) }, "ShuttingDown × closed is blank with the intent stop"},
		"a guard too many":     {func(t *Table) { find(t, ShuttingDown, Closed).When = "" }, "ShuttingDown × closed is decided twice with the intent stop"},
		"a guard for nothing": {func(t *Table) {
			t.Cells = append(t.Cells, Cell{State: Running, Event: Stop, When: IntentStop, Kind: Ignored, Why: "spoilt"})
		}, "Running × stop never counts with the intent stop"},
		"a misspelt guard":     {func(t *Table) { find(t, ShuttingDown, Closed).When = "restrat" }, "intent \"restrat\" is not declared"},
		"an unknown exit code": {func(t *Table) { find(t, ShuttingDown, ForceExit).Exits = []ExitCode{42} }, "exits with 42"},
		"held on the way out":  {func(t *Table) { find(t, Draining, Drained).Holds = true }, "holds turns on its way"},
		"held where none start": {func(t *Table) {
			*find(t, ShuttingDown, Prepared) = Cell{State: ShuttingDown, Event: Prepared, Kind: Internal, Holds: true, Why: "spoilt"}
		}, "holds turns in a state that starts none"},
		"a lost report":                {func(t *Table) { set(t, Draining, Prepared, Ignored) }, "is not internal"},
		"a coalesced outcome":          {func(t *Table) { set(t, Draining, Started, Coalesced) }, "nobody asks for it"},
		"an unknown state that serves": {func(t *Table) { t.Serves = "Sitting" }, "not declared"},
		"a lost outcome":               {func(t *Table) { set(t, Draining, Drained, Ignored) }, "does not move the machine"},
		"a lost deadline":              {func(t *Table) { set(t, ShuttingDown, ForceExit, Ignored) }, "does not move the machine"},
		"no deadline":                  {func(t *Table) { t.States[4].Deadlines = nil }, "does not reach Stopped"},
		"a deadline at once":           {func(t *Table) { t.States[4].Deadlines[0].After = nil }, "is at once"},
		"a deadline in Running": {func(t *Table) {
			t.States[1].Deadlines = []DeadlineSpec{{[]Setting{DrainTimeout}, Stop}}
		}, "must have none"},
		"a way out of Stopped": {func(t *Table) {
			set(t, Stopped, Restart, Transition)
			last := find(t, Stopped, Restart)
			last.To, last.Effect = Starting, EffectStart
		}, "leaves the final state"},
		"an effect never used": {func(t *Table) { t.Effects = append(t.Effects, EffectSpec{Name: "dance"}) }, "never set off"},
	} {
		t.Run(name, func(t *testing.T) {
			table := Lifecycle()
			c.spoil(&table)
			require.ErrorContains(t, table.Check(), c.says)
		})
	}
}

func isClosed(when Intent) func(Cell) bool {
	return func(c Cell) bool { return c.State == ShuttingDown && c.Event == Closed && c.When == when }
}

func find(t *Table, s State, e Event) *Cell {
	for i := range t.Cells {
		if t.Cells[i].State == s && t.Cells[i].Event == e {
			return &t.Cells[i]
		}
	}
	return nil
}

func set(t *Table, s State, e Event, k Kind) {
	*find(t, s, e) = Cell{State: s, Event: e, Kind: k, Why: "spoilt"}
}

func TestThePageIsInStepWithTheTable(t *testing.T) {
	want, err := Lifecycle().Render("markdown")
	require.NoError(t, err)
	got, err := os.ReadFile("../docs/states.md")
	require.NoError(t, err)
	require.True(t, want == string(got), "docs/states.md is behind the table. Try: make generate")
}

func TestThePictureInTheReadmeIsInStepWithTheTable(t *testing.T) {
	picture, err := Lifecycle().Render("overview")
	require.NoError(t, err)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```mermaid\n"+picture+"```\n", "run `make generate`")
}

func TestRenderKnowsItsFormats(t *testing.T) {
	for _, f := range Formats {
		first, err := Lifecycle().Render(f)
		require.NoError(t, err)
		again, err := Lifecycle().Render(f)
		require.NoError(t, err)
		require.Equal(t, first, again, "%s is the same at every call", f)
		require.Contains(t, first, "drain_timed_out")
	}
	_, err := Lifecycle().Render("svg")
	require.ErrorContains(t, err, "known are table, mermaid")
}

func TestEverySignalHasAnEventAndAKnownCondition(t *testing.T) {
	for _, s := range Signals() {
		require.Contains(t, Conditions, s.Condition, s.Name)
		require.Contains(t, []Event{Stop, Restart}, s.Event)
		require.Equal(t, s.Condition == Always, s.Else == "", s.Name)
	}
}

func TestEveryExitCodeHasAName(t *testing.T) {
	for _, spec := range ExitCodes() {
		require.Equal(t, spec.Name, spec.Code.String())
	}
	require.Equal(t, "exit code 42", ExitCode(42).String())
}

func TestEveryStateHasADefaultForItsDeadlines(t *testing.T) {
	for _, s := range Lifecycle().States {
		for _, d := range s.Deadlines {
			for _, setting := range d.After {
				require.Positive(t, Defaults()[setting], setting)
			}
		}
	}
}
