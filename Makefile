# Two commands are enough: `make up`, then what it prints. `make test` is what CI runs.

SPEC  ?= examples/shop/isles.yaml
ISLES := ./target/release/isles

.PHONY: up down test check nightly install build

up: build ## Three regions of the example shop on this machine.
	$(ISLES) -f $(SPEC) up --detach

down: ## Stop them and leave nothing behind.
	$(ISLES) -f $(SPEC) down

build: install
	cargo build --release --package isles --package shop

test: install ## Format, lints, every test. The last line is the runner's own count.
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- --deny warnings
	cargo build --release --workspace --all-targets
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --release --workspace; \
	else cargo test --release --workspace; fi

check: install ## `make test`, and tidy, licences and documentation besides.
	cargo xtask check

nightly: ## A million simulated failovers; FAILOVERS=n for another number. The verdict begins with PASSED, FAILED or INCOMPLETE.
	cargo test --profile nightly --package isles-decide --test sim -- --ignored --nocapture

install: ## PostgreSQL and etcd, where they are missing.
	@scripts/install-dependencies.sh
