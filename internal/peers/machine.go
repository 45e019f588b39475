//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// surroundings are what the figures depend on.
type surroundings struct {
	Date, Machine string
	Versions      []string
}

// lookAround also says what is missing.
func lookAround(ctx context.Context) (surroundings, error) {
	disk, err := fileSystem(os.TempDir())
	if err != nil {
		return surroundings{}, err
	}
	versions, err := versions(ctx)
	return surroundings{
		Date:     time.Now().Format("2 January 2006"),
		Machine:  fmt.Sprintf("%s, %s/%s, %d cores of %s, %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), disk),
		Versions: versions,
	}, err
}

// fileSystem refuses one in memory: a sync would cost nothing there, and the page would mean nothing.
func fileSystem(folder string) (string, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return "", fmt.Errorf("%s: %w; try another TMPDIR", folder, err)
	}
	switch uint32(s.Type) {
	case 0x01021994, 0x858458f6:
		return "", fmt.Errorf("%s is in memory, where nothing is durable; try a TMPDIR on a disk", folder)
	case 0xef53:
		return "ext4", nil
	case 0x58465342:
		return "xfs", nil
	case 0x9123683e:
		return "btrfs", nil
	}
	return fmt.Sprintf("file system %#x", uint32(s.Type)), nil
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, model, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

func versions(ctx context.Context) ([]string, error) {
	postgres, err := postgresProgram("postgres")
	if err != nil {
		return nil, err
	}
	pg, errPG := versionOf(ctx, postgres)
	redis, errRedis := versionOf(ctx, "redis-server")
	node, errNode := versionOf(ctx, "node")
	bullmq, errBull := installed("bullmq")
	ioredis, errIO := installed("ioredis")
	return []string{
		"ours: modernc.org/sqlite " + linked("modernc.org/sqlite"),
		"River " + linked("github.com/riverqueue/river") + " with pgx " + linked("github.com/jackc/pgx/v5") + ", PostgreSQL " + pg,
		"asynq " + linked("github.com/hibiken/asynq") + " with go-redis " + linked("github.com/redis/go-redis/v9") + ", Redis " + redis,
		"BullMQ " + bullmq + " with ioredis " + ioredis + ", Node " + node + ", Redis " + redis,
	}, errors.Join(errPG, errRedis, errNode, errBull, errIO)
}

var number = regexp.MustCompile(`\d+(\.\d+)+`)

func versionOf(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Stdout = &said
	if err := finish(cmd); err != nil {
		return "", fmt.Errorf("%s: %w; try make bench-peers, which installs it", program, err)
	}
	return number.FindString(said.String()), nil
}

// linked is the version of a module in this program.
func linked(path string) string {
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, m := range built.Deps {
			if m.Path == path {
				return strings.TrimPrefix(m.Version, "v")
			}
		}
	}
	return "of an unknown version"
}
