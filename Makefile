# Thin: every target is one or two commands that can also be typed. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
VERSION ?= 0.2.0
export CARGO_TERM_COLOR ?= auto
# A failed test says what it waited for; forty frames of the runtime above it would hide that.
export RUST_LIB_BACKTRACE ?= 0
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
KIT := $(TARGET_DIR)/debug/kit
# Built with the workspace: `cargo run -p` would select other features and compile many crates again.
GENERATE := $(TARGET_DIR)/debug/mcp-gateway-generate
IMAGES := $(TARGET_DIR)/debug/mcp-gateway-images
LINT := $(TARGET_DIR)/debug/mcp-gateway-lint
export MCPGW_BIN_DIR := $(abspath $(TARGET_DIR)/debug)

.PHONY: help
help: ## Show this help
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-20s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## -- the two commands of a newcomer ------------------------------------------------------------------------------

.PHONY: preflight
preflight: # what is missing is said before anything is compiled
	@test/kit/preflight.sh

.PHONY: demo
demo: preflight build ## Start everything on this machine, apply config/samples, call tools through Envoy (KEEP=1 keeps it up)
	$(KIT) doctor
	$(KIT) build
	$(KIT) run $(if $(KEEP),--keep,) -- test/demo/demo.sh

# On a machine without the control plane's programs, Go builds them while Rust's tests run; `e2e` waits for them.
.PHONY: test
test: preflight fmt build ## Everything that CI runs
	@nice -n 10 $(KIT) build >$(TARGET_DIR)/kit-build.log 2>&1 &
	$(MAKE) --no-print-directory clippy deny generate-check unit conformance e2e

## -- parts of `make test` -----------------------------------------------------------------------------------------

.PHONY: fmt
fmt: ## Check the formatting
	$(CARGO) fmt --all -- --check

.PHONY: clippy
clippy: ## Lints, warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --workspace --test install --locked -- -D warnings # which `all` leaves out, since it needs a cluster

.PHONY: deny
deny: tools ## Licences, bans and sources of dependencies; advisories when their database can be reached
	$(CARGO) deny check bans licenses sources
	@$(CARGO) deny check advisories 2>/dev/null || echo "advisories not checked: the advisory database cannot be reached from here"

.PHONY: generate-check
generate-check: build ## Fail when a generated file is stale
	$(GENERATE) --check

.PHONY: unit
unit: $(KIT) ## Unit and in-process tests
	$(KIT) build envoy
	$(KIT) build redis
	$(KIT) build python-mcp
	$(CARGO) test --workspace --exclude mcp-gateway-e2e --locked
	MCPGW_DATA_PATH=direct $(CARGO) test --workspace --exclude mcp-gateway-e2e --locked --test suite

# One after the other: two of them beside each other on two cores make tests with deadlines fail.
.PHONY: e2e
e2e: build ## End-to-end tests on a real control plane and Envoy (TEST=name runs one)
	$(KIT) doctor
	$(KIT) build
	$(MAKE) --no-print-directory e2e-cluster
	$(if $(TEST),,$(MAKE) --no-print-directory e2e-direct)
	$(MAKE) --no-print-directory e2e-faults
	$(MAKE) --no-print-directory e2e-install

# The whole workspace, although one suite runs: with other features of the same crates much would be compiled again.
IN_KIT = CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(abspath $(KIT)) run -- $(1)" \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(abspath $(KIT)) run -- $(1)" TEST="$(TEST)" $(CARGO) test --workspace --locked
.PHONY: e2e-cluster e2e-direct e2e-faults e2e-install
e2e-cluster: # one installation, many tests, then which permissions they needed
	$(call IN_KIT,$(CURDIR)/test/e2e/suite.sh) --test e2e -- --nocapture $(TEST)
# Tests of what callers see, which have to hold on either data path.
ON_EITHER_PATH := t8_two_teams t69_ tools_of_two_servers sdk_calls_asks_and_cancels
e2e-direct: # a cluster that has no EnvoyFilter, where extensions take the other data path unless a test says which
	MCPGW_KIT_ISTIO_CRDS=0 MCPGW_DATA_PATH=direct $(call IN_KIT) --test e2e -- --nocapture --include-ignored without_istios_kinds $(ON_EITHER_PATH)
e2e-faults: # the operator behind a faulty API server
	$(call IN_KIT) --test faults -- --nocapture --test-threads=1 $(TEST)
e2e-install: # what Helm and OLM make of the packages
	$(call IN_KIT) --test install -- --nocapture --test-threads=1 $(TEST)

GATEWAY_SUITES ?= all
# Without npm the suites are skipped, loudly; `make conformance MAY_SKIP=` fails then. About a minute once they are installed.
MAY_SKIP ?= --may-skip
.PHONY: conformance
conformance: build ## The official MCP conformance suites: the fixture, then through Envoy, router and broker
	$(KIT) build envoy
	$(TARGET_DIR)/debug/conformance direct $(MAY_SKIP) --results $(TARGET_DIR)/conformance
	$(TARGET_DIR)/debug/conformance gateway $(MAY_SKIP) --suite $(GATEWAY_SUITES) --results $(TARGET_DIR)/conformance
	$(TARGET_DIR)/debug/conformance gateway --direct $(MAY_SKIP) --suite $(GATEWAY_SUITES) --results $(TARGET_DIR)/conformance
	$(TARGET_DIR)/debug/conformance standalone $(MAY_SKIP) --suite $(GATEWAY_SUITES) --results $(TARGET_DIR)/conformance
	MCPGW_BROKER=$(abspath $(TARGET_DIR))/debug/mcp-gateway-broker test/conformance/upstream/run.sh

# Programs as they are shipped are measured: the data plane alone, admission and operator on a control plane of the kit.
# BENCH is one of data-plane, admission, operator, micro, with its options; without it the first three.
BENCH ?=
.PHONY: bench
bench: $(KIT) ## Benchmarks, each with its baseline in the same run: a table with MET or MISSED (QUICK=1, BENCH="data-plane --only calls", BENCH="micro --instructions")
	$(CARGO) build --release --locked -p mcp-gateway-operator -p mcp-gateway-webhook -p mcp-gateway-broker -p mcp-gateway-bench --bins
ifneq ($(filter micro%,$(BENCH)),)
	$(TARGET_DIR)/release/bench $(BENCH)
endif
ifneq ($(filter data-plane%,$(or $(BENCH),data-plane)),)
	$(KIT) build envoy
	$(KIT) build redis
	$(TARGET_DIR)/release/bench $(or $(BENCH),data-plane $(if $(QUICK),--quick,)) --json $(TARGET_DIR)/bench-data-plane.json
endif
ifeq ($(filter data-plane% micro%,$(BENCH)),)
	$(KIT) build
	for subject in $(or "$(BENCH)",admission operator); do \
	  MCPGW_KIT_FSYNC=1 $(KIT) run --bin-dir $(abspath $(TARGET_DIR)/release) -- $(abspath $(TARGET_DIR)/release/bench) $$subject || exit 1; done
endif

.PHONY: profile
profile: $(KIT) ## Flame graphs of router, front, broker and operator under load, and their hottest functions (needs perf)
	RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
	  $(CARGO) build --release --locked --target-dir $(TARGET_DIR)/profile -p mcp-gateway-operator -p mcp-gateway-bench --bins
	$(KIT) build
	$(TARGET_DIR)/profile/release/bench profile --folder $(TARGET_DIR)/profile
	$(KIT) run --bin-dir $(abspath $(TARGET_DIR)/profile/release) -- $(abspath $(TARGET_DIR)/profile/release/bench) operator \
	  --namespaces 100 --profile $(abspath $(TARGET_DIR)/profile)

# cargo-fuzz wants unstable compiler flags; RUSTC_BOOTSTRAP gives them to the stable compiler. A corpus lives in
# <crate>/fuzz/corpus (kept out of the tree); what made a target fail is in <crate>/fuzz/artifacts.
FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: ## Every fuzz target of */fuzz, FUZZ_SECONDS each (default 600)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked
	@for folder in */fuzz; do for target in $$(cd $$folder && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz list); do \
	  echo "== $$folder: $$target, $(FUZZ_SECONDS) s"; \
	  (cd $$folder && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS)) || exit 1; \
	done; done

## -- building -----------------------------------------------------------------------------------------------------

.PHONY: build
build: ## Build every binary (target/debug, linked from bin/)
	$(CARGO) build --workspace --bins --locked
	@mkdir -p bin
	@for program in mcp-gateway-operator mcp-gateway-webhook mcp-gateway-broker mcpgw; do \
	  ln -sf $(abspath $(TARGET_DIR))/debug/$$program bin/$$program; done
	@ln -sf mcp-gateway-broker bin/mcp-broker-router

$(KIT):
	$(CARGO) build --workspace --bins --locked

.PHONY: generate
generate: build ## Write CRDs, RBAC, manifests and the API reference from code
	$(GENERATE)

.PHONY: tools
tools: ## Install what `make test` needs beside Rust, Go, Node.js and Python (cargo-deny)
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked --debug

.PHONY: docs
docs: site ## The site (target/book) and the API documentation of the crates, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

# What `cargo install` writes need not be on PATH.
MDBOOK_VERSION := 0.5.4
MDBOOK ?= $(or $(shell command -v mdbook),$(or $(CARGO_INSTALL_ROOT),$(CARGO_HOME),$(HOME)/.cargo)/bin/mdbook)
BOOK := $(abspath $(TARGET_DIR))/book

.PHONY: site
site: ## The guides as a site in target/book; links and generated pages are checked first
	$(CARGO) test -q --workspace --locked --test docs
	@$(MDBOOK) --version >/dev/null 2>&1 || $(CARGO) install mdbook --version $(MDBOOK_VERSION) --locked --debug
	$(MDBOOK) build docs --dest-dir $(BOOK)
	MCPGW_BOOK=$(BOOK) $(CARGO) test -q --workspace --locked --test docs -- --ignored built_book
	@echo "The site: $(BOOK)/index.html"

CONFIG ?= ./config/mcp-system/config.yaml
.PHONY: run
run: build ## Run the gateway without a cluster (CONFIG=config/samples/standalone.yaml has servers that are started with it)
	./bin/mcp-broker-router --mcp-gateway-config $(CONFIG)

.PHONY: run-controller
run-controller: build ## Run the operator against the cluster of KUBECONFIG, whose own is scaled to 0 (from outside it cannot ask brokers what they serve)
	./bin/mcp-gateway-operator --leader-elect=false --webhook-certs=external

# Ports: KIND_HOST_PORT_HTTP (or GATEWAY_LOCAL_PORT_HTTP_MCP, which wins) for HTTP, KIND_HOST_PORT_HTTPS for HTTPS listeners.
.PHONY: local-env-setup
local-env-setup: ## A whole environment on this machine that stays up: `make demo KEEP=1`
	$(MAKE) --no-print-directory demo KEEP=1

.PHONY: dev-gateway-forward
dev-gateway-forward: $(KIT) ## A port (GATEWAY_LOCAL_PORT_HTTP_MCP, 8888) of this machine for the Gateway of that environment, or of KUBECONFIG
	test/demo/forward.sh $(KIT)

.PHONY: inspect-gateway
inspect-gateway: $(KIT) ## MCP Inspector with the gateway's URL, forwarded (MCP_URL= for another one)
	test/demo/inspect.sh $(KIT)

.PHONY: oauth-example-setup
oauth-example-setup: build ## Put that environment behind config/example-access-control: a policy, keys and OAuth metadata
	test/demo/oauth.sh $(KIT)

## -- shipping ------------------------------------------------------------------------------------------------------

# Images hold static programs: glibc linked in, so that they need no file of a distribution (docs/guides/upgrade.md).
# Paths and times (C's __DATE__) are taken out, so that the bytes depend neither on where the tree lies nor on the day.
# ARCHITECTURES are Go's names of processors; one that is not this machine's needs its Rust target and a cross compiler.
ARCHITECTURES ?= amd64
TRIPLE_amd64 := x86_64-unknown-linux-gnu
TRIPLE_arm64 := aarch64-unknown-linux-gnu
TRIPLE_ppc64le := powerpc64le-unknown-linux-gnu
TRIPLE_s390x := s390x-unknown-linux-gnu
PROGRAMS := mcp-gateway-operator mcp-gateway-webhook mcp-gateway-broker mcpgw
STATIC := -C target-feature=+crt-static --remap-path-prefix=$(CURDIR)=/src --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo \
	--remap-path-prefix=$(abspath $(TARGET_DIR))=/target
EPOCH = $(shell awk '/^epoch:/{print $$2}' config/manifests/release.yaml)

.PHONY: bundle
bundle: build ## OLM bundle and catalog of this tree (VERSION says which it must be), linted
	$(GENERATE) --expect-version $(VERSION)
	$(LINT)

.PHONY: images
images: build ## Images of programs, bundle, catalog and chart as OCI layouts in dist/images; digests go into the bundle
	SOURCE_DATE_EPOCH=$(EPOCH) CARGO_INCREMENTAL=0 RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --profile image $(foreach arch,$(ARCHITECTURES),--target $(TRIPLE_$(arch))) $(addprefix -p ,$(PROGRAMS)) --bins
	$(IMAGES) programs $(foreach arch,$(ARCHITECTURES),--binaries $(arch)=$(TARGET_DIR)/$(TRIPLE_$(arch))/image)
	$(GENERATE)
	$(IMAGES) files
	$(LINT)

.PHONY: push
push: build ## Push what `make images` wrote to REGISTRY (REGISTRY_USER and REGISTRY_PASSWORD log in)
	$(IMAGES) push --registry $(REGISTRY)
