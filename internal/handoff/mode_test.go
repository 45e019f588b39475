package handoff

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
)

func TestTheModeFollowsTheSurroundingsAndSaysWhy(t *testing.T) {
	plain := Surroundings{}
	for _, tt := range []struct {
		in         Surroundings
		configured fsm.Mode
		mode       fsm.Mode
		why        string
	}{
		{plain, "auto", fsm.ModeExec, "no supervisor notices"},
		{plain, "exec", fsm.ModeExec, "configured"},
		{plain, "spawn", fsm.ModeSpawn, "configured"},
		{plain, "in-process", fsm.ModeInPlace, "configured"},
		{plain, "supervisor", fsm.ModeSupervisor, "configured"},
		{Surroundings{NoRespawn: true}, "auto", fsm.ModeInPlace, "GATEWAY_NO_RESPAWN=1"},
		{Surroundings{NoRespawn: true}, "spawn", fsm.ModeInPlace, "GATEWAY_NO_RESPAWN=1"},
		{Surroundings{First: true}, "auto", fsm.ModeInPlace, "process 1"},
		{Surroundings{First: true}, "spawn", fsm.ModeInPlace, "process 1"},
		{Surroundings{First: true}, "exec", fsm.ModeExec, "configured"},
		{Surroundings{Supervisor: "systemd", Follows: true}, "auto", fsm.ModeExec, "supervised by systemd"},
		{Surroundings{Supervisor: "systemd", Follows: true}, "spawn", fsm.ModeSpawn, "supervised by systemd"},
		{Surroundings{Supervisor: "launchd"}, "spawn", fsm.ModeExec, "launchd would take"},
		{Surroundings{Supervisor: "launchd"}, "auto", fsm.ModeExec, "supervised by launchd"},
		{Surroundings{TLS: true}, "auto", fsm.ModeSpawn, "beside its successor"},
		{Surroundings{TLS: true}, "exec", fsm.ModeInPlace, "cannot be carried over an exec"},
		{Surroundings{TLS: true}, "spawn", fsm.ModeSpawn, "configured"},
		{Surroundings{TLS: true, First: true}, "auto", fsm.ModeInPlace, "process 1"},
		{Surroundings{TLS: true, UnderFirst: true}, "auto", fsm.ModeInPlace, "process 1 may end"},
		{Surroundings{TLS: true, UnderFirst: true, Supervisor: "systemd", Follows: true}, "auto", fsm.ModeSpawn, "supervised by systemd"},
		{Surroundings{TLS: true, Supervisor: "launchd"}, "auto", fsm.ModeInPlace, "launchd would take"},
		{Surroundings{TLS: true, Supervisor: "launchd"}, "spawn", fsm.ModeInPlace, "launchd would take"},
		{Surroundings{UnderFirst: true}, "auto", fsm.ModeExec, "no supervisor notices"},
	} {
		mode, why := tt.in.Choose(tt.configured)
		require.Equal(t, tt.mode, mode, "%+v %s", tt.in, tt.configured)
		require.Contains(t, why, tt.why)
	}
}

func TestTheSurroundingsAreReadFromTheEnvironment(t *testing.T) {
	for _, name := range []string{"NOTIFY_SOCKET", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "XPC_SERVICE_NAME", "GATEWAY_SUPERVISED"} {
		t.Setenv(name, "")
	}
	require.Empty(t, Look().Supervisor)
	t.Setenv("XPC_SERVICE_NAME", "0")
	require.Empty(t, Look().Supervisor, "a terminal on macOS")
	t.Setenv("GATEWAY_SUPERVISED", "1")
	require.Equal(t, "GATEWAY_SUPERVISED=1", Look().Supervisor)
	t.Setenv("XPC_SERVICE_NAME", "org.example.gateway")
	require.Equal(t, "launchd", Look().Supervisor)
	t.Setenv("INVOCATION_ID", "0123")
	require.Equal(t, "launchd", Look().Supervisor, "a login session has it too")
	t.Setenv("SYSTEMD_EXEC_PID", "1")
	require.Equal(t, "systemd", Look().Supervisor)
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	require.True(t, Look().Follows)
}
