# The commands of this project. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TOOL    := go tool -modfile=internal/tools/go.mod
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

.PHONY: help build generate diagram check lint generated unit cross test deps deps-clients deps-certify deps-peers bench bench-queue bench-clients bench-page bench-peers certify chaos certify-queue fuzz

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-13s %s\n", $$1, $$2 }'

build: ## build the program as bin/gateway
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.stamped=$(VERSION)' -o bin/gateway ./cmd/gateway

generate: ## write docs/states.md, and the picture in the README, from the table in fsm/; docs/turns.md and docs/connections.md from those in queue/ and server/carry/; and the manual pages from the commands
	go run ./cmd/gateway states --format markdown > docs/states.md.new
	mv docs/states.md.new docs/states.md
	go run ./cmd/gateway states --format overview | awk 'NR == FNR { picture = picture $$0 "\n"; next } \
	  /^```mermaid$$/ { print; printf "%s", picture; skip = 1; next } /^```$$/ { skip = 0 } !skip' - README.md > README.md.new
	mv README.md.new README.md
	go run ./internal/turnspage > docs/turns.md.new
	mv docs/turns.md.new docs/turns.md
	go test -count 1 -run TestThePageIsInStepWithTheTable ./server/carry -update
	GATEWAY_TEST_MANUAL=write go test -count 1 -run TestTheManualIsThatOfTheCommands ./cmd/gateway

diagram: ## draw the picture of the states for the page from the table in fsm/; needs node and npm
	cd internal/tools/diagram && npm ci --ignore-scripts --no-audit --no-fund
	go run ./cmd/gateway states --format json | node internal/tools/diagram/draw.mjs > server/page/states.svg
	go run ./cmd/gateway states --format json | node internal/tools/diagram/draw.mjs upright > server/page/states-upright.svg

check: lint generated unit ## format, lint, vet, generated pages, unit tests: the quick one

lint:
	$(TOOL) golangci-lint run ./...
	go vet ./...
	@! git ls-files '*package-lock.json' | xargs grep -l '"resolved"' || { echo 'a lock file names a registry. Try: npm install --package-lock-only beside it'; exit 1; }

unit:
	go test -race -short ./...

# Every page that make generate writes is that of this tree: it is written again, and nothing may have changed.
# A page that was behind is the right one afterwards.
STATE := { git diff HEAD; git ls-files --others --exclude-standard; } | sha256sum
generated:
	@before=$$($(STATE)); $(MAKE) -s generate; [ "$$before" = "$$($(STATE))" ] || \
	  { git --no-pager diff --stat HEAD; echo 'a generated page was behind. Try: commit what make generate has just written'; exit 1; }

# Nobody tests it there, but it builds, and so do its tests.
cross: ## build and vet for macOS and FreeBSD
	for system in darwin freebsd; do \
	  CGO_ENABLED=0 GOOS=$$system go build ./... && CGO_ENABLED=0 GOOS=$$system go vet ./... || exit 1; done

test: deps deps-clients ## install what the tests need, and run them all
	go test -v -race -count=1 -timeout 20m ./...
	$(MAKE) fuzz FUZZTIME=2000x

# The agents of the tests are real programs, and so is systemd. Installed where it may be done, skipped with a word where not.
deps: NEEDED := bc:bc chromium:chromium jq:jq tmux:tmux systemctl:systemd pgrep:procps unshare:util-linux
deps:
	@$(INSTALL)

# OpenAI's client for Node, OpenClaw's command line, and a Node that is new enough for them; another runs npm.
CLIENTS := cmd/gateway/testdata/openai-node cmd/gateway/testdata/openclaw
deps-clients: NEEDED := npm:npm
deps-clients:
	@$(INSTALL)
	@for client in $(CLIENTS); do (cd $$client && cmp -s package-lock.json node_modules/installed || \
	  { for try in 1 2 3; do npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && cp package-lock.json node_modules/installed && break; done; } || \
	  echo "cannot install $$client here; its tests are skipped, or fail where CI is set"); done

# The servers that ours is compared with.
deps-certify: NEEDED := nginx:nginx-light haproxy:haproxy
deps-certify:
	@$(INSTALL)

# The queues that ours is compared with.
deps-peers: NEEDED := redis-server:redis-server node:nodejs npm:npm initdb:postgresql
deps-peers:
	@$(INSTALL)

# Installs each program:package of NEEDED that is missing.
define INSTALL
missing=; for p in $(NEEDED); do \
  command -v $${p%:*} >/dev/null || compgen -G "/usr/sbin/$${p%:*}" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$${p%:*}" >/dev/null || missing="$$missing $${p#*:}"; done; \
if [ -n "$$missing" ]; then \
  sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; \
  { $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends $$missing; } </dev/null \
    || echo "cannot install$$missing here; install them for what uses them"; \
fi
endef

bench: ## measure; see docs/bench/
	go test -run '^$$' -bench . -benchmem -benchtime 2s ./...

# What a disk does changes from minute to minute, so it is measured beside each part, and all of it counts.
bench-queue: ## measure the queue, beside what its disk can do, and write docs/bench/queue.md
	{ go test -run '^$$' -bench 'RawSync|Accept$$|FullTurns' -benchtime 2s -count 3 ./queue; \
	  go test -run '^$$' -bench 'AcceptLatency' -benchtime 100000x -count 3 ./queue; \
	  go test -run '^$$' -bench 'Open|Memory' -benchtime 1x -count 3 ./queue ./cmd/gateway; \
	  go test -run '^$$' -bench 'RawSync|Ageing' -benchtime 1s ./queue; \
	} | tee /dev/stderr | go run ./internal/benchpage docs/bench/queue.md.tmpl > docs/bench/queue.md.new
	mv docs/bench/queue.md.new docs/bench/queue.md
	cat docs/bench/queue.md

bench-clients: ## measure HTTP and WebSocket clients, and write docs/bench/clients.md
	{ go test -run '^$$' -bench 'RawSync' -benchtime 2s -count 3 ./queue; \
	  go test -run '^$$' -bench 'HTTPTurns|WebSocketTurns' -benchtime 3s -count 3 ./server; \
	  go test -run '^$$' -bench 'IdleWebSockets' -benchtime 1x -count 3 ./server; \
	} | tee /dev/stderr | go run ./internal/benchpage docs/bench/clients.md.tmpl > docs/bench/clients.md.new
	mv docs/bench/clients.md.new docs/bench/clients.md

# What a user would pick instead is a module of its own: the program needs none of it.
bench-page: deps ## measure the page in a browser, and write docs/bench/page.md
	GATEWAY_TEST_PAGE=$(CURDIR)/docs/bench/page.md go test ./cmd/gateway -run TestThePageStaysQuick -count=1 -v -timeout 20m

bench-peers: deps-peers ## measure the queue beside River, asynq and BullMQ, and write docs/bench/peers.md
	cd internal/peers && npm ci --ignore-scripts --no-audit --no-fund && go build -o $(CURDIR)/bin/peers .
	cd internal/peers && $(CURDIR)/bin/peers -write $(CURDIR)/docs/bench/peers.md

certify: deps-certify ## restart a gateway 1,700 times under load, and others, and write docs/bench/zero-loss.md
	go run ./internal/certify -write docs/bench/zero-loss.md

CHAOS ?= 15m
chaos: ## let everything happen to a gateway for CHAOS (default 15m) in each of two modes, and write docs/bench/chaos.md
	go run ./internal/certify -chaos $(CHAOS) -write docs/bench/chaos.md

certify-queue: ## kill the gateway KILLS times (default 1000) and at every failpoint, and write docs/bench/kills.md
	GATEWAY_TEST_CERTIFY=$(CURDIR)/docs/bench/kills.md GATEWAY_TEST_KILLS=$${KILLS:-1000} go test -run 'TestCertifyQueue$$' -count 1 -timeout 60m -v ./cmd/gateway

# A number of inputs and not a time: until Go 1.27 the end of a time may itself be taken for a failure (golang/go#75804).
fuzz: ## fuzz every decoder with FUZZTIME inputs each (default 20000x)
	@for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime "$${FUZZTIME:-20000x}" $$pkg; \
	  done; \
	done
