# What a newcomer types. `make` alone lists it.

export THMANYAH_CACHE ?= $(HOME)/.cache/thmanyah
# The RocksDB library that its project publishes, instead of a compile of ten minutes and more. `cargo build` without these
# two compiles it from source and links it statically, as releases do.
export ROCKSDB_LIB_DIR = $(THMANYAH_CACHE)/rocksdb/link
export RUSTFLAGS = -C link-arg=-Wl,-rpath,$(THMANYAH_CACHE)/rocksdb/run
# Tests in documentation are programs, too.
export RUSTDOCFLAGS = $(RUSTFLAGS)
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-full check bench chaos chaos-sinks simulate simulate-mutants

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## install and fetch what demo, tests and benches need
	@dev/setup.sh

build: ## the same, and compile the workspace meanwhile; the binaries are in target/release
	@dev/setup.sh --build

demo: build ## the whole pipeline on this machine: PostgreSQL, Debezium, Kafka, thmanyah, its three destinations
	@$${CARGO_TARGET_DIR:-target}/release/demo

test: build ## every test, the end-to-end ones on real services included
	cargo test --release --workspace --no-fail-fast

# ROUNDS=n plays each scenario n times.
test-full: build ## the scenarios of several instances at full size, with their times asserted; half an hour
	FULL=1 cargo test --release -p thmanyah-proptests --no-fail-fast --test delayed_end_txn --test held_join \
		--test rolling_restart --test zombie -- --nocapture --test-threads 1

check: setup ## formatting, lints, documentation, licences
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check licenses bans sources; \
	else echo "cargo deny is not installed, licences were not checked: cargo install --locked cargo-deny"; fi

simulate: ## SCHEDULES (a million) of simulated faults, taken up again where they were left
	@cargo build --release -p thmanyah-proptests --bin simulate
	@$${CARGO_TARGET_DIR:-target}/release/simulate $(or $(SCHEDULES),1000000)

simulate-mutants: ## breaks the product in known ways, each of which the simulator must catch
	@cargo build --release -p thmanyah-proptests --bin mutants
	@$${CARGO_TARGET_DIR:-target}/release/mutants $(MUTANTS)

bench: build ## micro-benches, the processor beside a bare copy loop, a cold restore and each sink beside a bare reader
	cargo bench --workspace --bench codec --bench state
	@$${CARGO_TARGET_DIR:-target}/release/processor
	@$${CARGO_TARGET_DIR:-target}/release/restore
	@$${CARGO_TARGET_DIR:-target}/release/sinks

chaos: build ## 200 faults against three brokers and three instances: CHAOS_FAULTS=n CHAOS_SEED=s
	@$${CARGO_TARGET_DIR:-target}/release/chaos

# SINK_KILLS=n kills each so often.
chaos-sinks: build ## BigQuery and Redis: the sink killed 200 times while it delivers, then compared with what was published; HTTP under faults
	SINK_KILLS=$(or $(SINK_KILLS),200) cargo test --release -p thmanyah-proptests --no-fail-fast \
		--test sink_bigquery --test sink_redis --test sink_http -- --nocapture --test-threads 1
