# What a person runs: make build, make test, make check, make bench.
# `make check` is what CI runs before the tests; .ci/run is all of it.

GO       ?= go
BIN      := bin/peercache
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The end-to-end tests and the flash crowd make namespaces: they need root.
AS_ROOT  := $(if $(filter 0,$(shell id -u)),,-exec "sudo -E")
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

CONTAINERD2         := v2.4.2
CACHE               ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/peercache-test
CONTAINERD2_BIN     := $(CACHE)/containerd-$(CONTAINERD2)
CONTAINERD2_MODULES := containerd ctr containerd-shim-runc-v2

.PHONY: build
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN) ./cmd/peercache

# Unit, conformance, fuzz-seed and race tests, then the end-to-end ones.
.PHONY: test
test: deps test-unit test-virtual test-faults test-e2e

.PHONY: deps
deps:
	scripts/install-test-deps

.PHONY: test-unit
test-unit:
	$(GO) test -race -timeout 10m ./...

# Real nodes on a simulated network in virtual time, without the race detector, which
# makes ten times as much of it. 50 take some 40 CPU-seconds and 2 GiB, 200 300 and 12 GiB.
VIRTUAL_NODES ?= 50
.PHONY: test-virtual
test-virtual:
	$(GO) test -count 1 -timeout 60m -run TestVirtualFlashCrowd -v ./cmd/peercache -args -virtual.nodes $(VIRTUAL_NODES)

# Random clusters in which random things go wrong: 200 of them, without the race
# detector, which would take ten times as long.
.PHONY: test-faults
test-faults:
	$(GO) test -timeout 10m -count 1 -run 'TestFaultSearch$$' ./simulation -args -search-seeds 200

.PHONY: test-e2e
test-e2e: build
	PEERCACHE_BIN=$(CURDIR)/$(BIN) $(GO) test -tags e2e -count 1 -timeout 15m $(AS_ROOT) $(E2EFLAGS) ./e2e

# The real containerd 2.4 with parallel layer fetches, built from source once.
.PHONY: test-containerd2
test-containerd2: deps build $(CONTAINERD2_BIN)/.complete
	PEERCACHE_BIN=$(CURDIR)/$(BIN) PEERCACHE_E2E_CONTAINERD2=$(CONTAINERD2_BIN) \
		$(GO) test -tags e2e -count 1 -timeout 10m -run 'TestContainerd2$$' -v $(AS_ROOT) ./e2e

$(CONTAINERD2_BIN)/.complete:
	GOBIN=$(CONTAINERD2_BIN) $(GO) install $(CONTAINERD2_MODULES:%=github.com/containerd/containerd/v2/cmd/%@$(CONTAINERD2))
	touch $@

# Each fuzz target for FUZZTIME, one after the other.
FUZZTIME ?= 20s
.PHONY: fuzz
fuzz:
	FUZZTIME=$(FUZZTIME) scripts/fuzz

.PHONY: check
check: fmt-check vet lint

.PHONY: fmt-check
fmt-check:
	@unformatted=$$(git ls-files -z '*.go' | xargs -0 gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "gofmt these:"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet ./...
	$(GO) vet -tags e2e ./e2e

.PHONY: lint
lint:
	$(GO) run $(LINT) run ./...

# The figures, each beside what it is judged by. An idle machine, please.
.PHONY: bench
bench: deps build
	$(GO) run ./bench/serve -peercache $(CURDIR)/$(BIN)
	$(GO) run ./bench/nodetonode -peercache $(CURDIR)/$(BIN)
	$(GO) run ./bench/firstbyte -peercache $(CURDIR)/$(BIN)
	$(GO) run ./bench/memory -peercache $(CURDIR)/$(BIN)
	$(GO) run $(AS_ROOT) ./bench/flashcrowd -peercache $(CURDIR)/$(BIN)
	$(GO) run $(AS_ROOT) ./bench/control -peercache $(CURDIR)/$(BIN)

.PHONY: clean
clean:
	rm -rf bin dist
