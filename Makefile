# Thin: every target is one command you could type yourself. `make` explains itself.

export PATH := $(HOME)/.cargo/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup build check test test-unit smoke smoke-old-kernel demo demo-stop bench clean

help: ## Show this list
	@echo 'weft: a Kubernetes pod network switched in user space over AF_XDP'
	@echo
	@echo 'Start here (as root, on Debian or Ubuntu):'
	@echo '  make demo          two nodes, three pods, real traffic, a summary; cleans up after itself'
	@echo '  make demo KEEP=1   the same, left running, with hints what to try'
	@echo
	@echo 'All targets:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'One smoke test alone:  make smoke T=ping     (perf-scripts/smoke/ping_test.sh)'
	@echo 'Its logs:              target/smoke/ping/'

setup: ## Install the Debian packages that are missing; check for Rust
	@perf-scripts/setup.sh build test

build: ## Build the release binaries into target/release
	@perf-scripts/setup.sh build
	cargo build --release --locked --workspace --bins

check: ## Formatting, lints, house rules, documentation, dependency policy
	@perf-scripts/setup.sh build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet -p weft-tidy
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet
	@if command -v cargo-deny >/dev/null; then \
	  cargo deny --locked check bans licenses sources && \
	  cargo deny --locked --manifest-path dataplane/fuzz/Cargo.toml --config deny.toml check \
	    --allow unmatched-skip bans licenses sources; \
	else echo 'dependency policy not checked; for that: cargo install --locked cargo-deny'; fi

test: setup build ## Everything: cargo tests, then smoke tests in network namespaces
	@perf-scripts/test.sh

test-unit: ## Cargo tests only, each in a process of its own
	@perf-scripts/setup.sh build test
	@perf-scripts/cargo-tests.sh

smoke: setup build ## Smoke tests only; T="ping storm" picks some
	@perf-scripts/smoke/run.sh $(T)

smoke-old-kernel: setup build ## Smoke tests on Debian's kernel in an emulated machine, minutes each; T="ping restart"
	perf-scripts/old-kernel.sh $(T)

demo: ## See it work; KEEP=1 leaves it up
	@perf-scripts/setup.sh build demo
	@cargo build --release --locked --workspace --bins
	@KEEP=$(KEEP) deploy/demo.sh

demo-stop: ## End a demo that was left up
	@deploy/demo.sh stop

bench: build ## The benchmark matrix beside the kernel's datapaths, 17 minutes; QUICK=1: 3 minutes
	@perf-scripts/setup.sh bench
	@perf-scripts/run/matrix.sh $(if $(QUICK),--quick)

clean: ## Remove everything that was built
	cargo clean
