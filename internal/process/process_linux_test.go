package process

import (
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnAuthorizationIsUsedOnceAndLivesFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Authorization
		_, ok := a.Use()
		require.False(t, ok, "the zero value grants nothing")
		a.Grant("local")
		actor, ok := a.Use()
		require.True(t, ok)
		require.Equal(t, "local", actor)
		_, ok = a.Use()
		require.False(t, ok)
		a.Grant("local")
		time.Sleep(5 * time.Second)
		_, ok = a.Use()
		require.False(t, ok)
	})
}

func TestQuiesceHandsOnEverySignalCaughtBefore(t *testing.T) {
	var mu sync.Mutex
	var got []os.Signal
	s := Listen(func(sig os.Signal) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, sig)
	}, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGHUP)
	defer s.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 20 {
		// To this thread: one sent to the process may still be on its way to another thread.
		require.NoError(t, unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTERM))
		restore := s.Quiesce()
		mu.Lock()
		require.Equal(t, []os.Signal{syscall.SIGTERM}, got)
		got = nil
		mu.Unlock()
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1), "ignored, not deadly")
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
		restore()
	}
}

func TestASlowReloadCrowdsOutNoStop(t *testing.T) {
	stopped, release := make(chan struct{}), make(chan struct{})
	s := Listen(func(sig os.Signal) {
		if sig == syscall.SIGTERM {
			close(stopped)
			return
		}
		<-release
	}, syscall.SIGTERM, syscall.SIGHUP)
	defer s.Close()
	defer close(release)
	for range 100 {
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	}
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	select {
	case <-stopped:
	case <-time.After(time.Minute):
		t.Fatal("the stop was lost behind the reloads")
	}
	s.Quiesce()()
}

// The goroutine of a kind may see the flush before the signal, and then deliver the signal as part of the flush.
func TestADeliveryInAFlushDoesNotHoldTheImageBack(t *testing.T) {
	k := &kind{sig: syscall.SIGHUP, caught: make(chan os.Signal, 1), flush: make(chan chan struct{}), ended: make(chan struct{})}
	flushed := make(chan chan struct{}, 1)
	go func() { flushed <- <-k.flush }()
	restore := (&Signals{kinds: []*kind{k}}).Quiesce()
	restore()
	signal.Stop(k.caught)
	require.NotNil(t, <-flushed, "the flush has begun, and has not ended")
}

func TestASupervisorThatDoesNotReadHoldsNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	deaf, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Setenv("NOTIFY_SOCKET", path)
	s := NewSupervisor()
	for range 1000 {
		s.Notify("STATUS=" + strings.Repeat("x", 1000))
	}
	s.Flush()
	require.NoError(t, deaf.Close()) // and its writer goes with it
	<-s.ended
}
