# The only way in which people and CI call anything. `make` alone lists it all.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Steps share two cores, one target folder and one lock: in turn is fastest.
.NOTPARALLEL:
.DEFAULT_GOAL := help

step := @.ci/step
root := $(shell id -u | grep -qx 0 && echo yes)
host = $(shell rustc -vV | sed -n "s/^host: //p")
shipped := controller agent operator runner
version = $(shell sed -n "/workspace.package/,/^$$/s/^version = .\(.*\).$$/\1/p" Cargo.toml)

.PHONY: help
help: ## List every target with a sentence
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run it all here: Kubernetes (or the one of KUBECONFIG), controller, agent, kubectl through the tunnel
	@demo/up

.PHONY: demo-down
demo-down: ## Stop the demo and leave nothing of it behind
	@demo/down

.PHONY: test
test: requires kube engines console console-test programs ## Run every test on real parts; sets up what they need first
	@# Stories wait for others more than they compute: more of them than cores at once.
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} .ci/step "test" .ci/test --workspace --locked --no-fail-fast

# What npm installs, made anew only when the list of it changes.
console/node_modules/.installed: console/package-lock.json
	$(step) "packages of the console" npm ci --prefix console --no-audit --no-fund
	@touch $@

.PHONY: console
console: console/node_modules/.installed ## Build the console, which the controller takes in when it is built next
	$(step) "console" npm run --prefix console --silent build

.PHONY: console-test
console-test: console/node_modules/.installed
	$(step) "units of the console" npm run --prefix console --silent test

.PHONY: console-lint
console-lint: console/node_modules/.installed
	$(step) "lint of the console" npm run --prefix console --silent lint

.PHONY: screenshots
screenshots: requires kube console ## Take pictures of every screen of the console, into .work/screenshots
	@CULVERT_SCREENSHOTS=$(CURDIR)/.work/screenshots .ci/step "pictures" cargo test --locked -p culvert-integration --test console a_browser

.PHONY: ci
ci: fmt-check kube lint test ## What CI runs: format, lint, test

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all

.PHONY: fmt-check
fmt-check:
	$(step) "format" cargo fmt --all --check

.PHONY: lint
lint: console-lint ## Check code, documentation and licences; a warning is an error
	$(step) "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" .ci/step "documentation" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	@if cargo deny --version >/dev/null 2>&1; then \
	    .ci/step "licences, bans, sources" cargo deny --offline check licenses bans sources; \
	else \
	    echo "==> licences: not checked, cargo-deny is not installed (cargo install cargo-deny)" >&2; \
	fi

.PHONY: bench
bench: requires kube ## Measure tunnel, latency, reconnection and backups beside what others have, and print them
	$(step) "release programs" cargo build --workspace --bins --release --locked
	$(step) "tunnels of others" integration/bench/peers/build
	@CULVERT_BENCH_PEERS=$$(integration/bench/peers/build) .ci/step "bench of tunnels" cargo bench --locked --package culvert-integration --bench tunnel
	$(step) "bench of many agents" cargo bench --locked --package culvert-integration --bench agents
	$(step) "bench" cargo bench --locked --package culvert-integration --bench report
	$(step) "bench of backups" cargo bench --locked --package culvert-integration --bench backup

# Coverage needs flags that a stable compiler takes only when it is told so.
.PHONY: fuzz
fuzz: ## Fuzz each thing that is read off the wire for SECONDS_EACH (60): see fuzz/targets.rs
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	@for target in $$(ls fuzz/fuzz_targets | sed "s/\.rs$$//"); do \
	    mkdir -p "fuzz/found/$$target"; \
	    RUSTC_BOOTSTRAP=1 .ci/step "fuzz $$target" cargo fuzz run --sanitizer none "$$target" \
	        "fuzz/found/$$target" "fuzz/corpus/$$target" -- -max_total_time="$${SECONDS_EACH:-60}" -max_len=65536; \
	done

.PHONY: gen
gen: requires kube ## Write again what is generated: proto code, OpenAPI, access matrix, help texts, chart renders
	@CULVERT_GEN=1 .ci/step "code and documents" cargo test --workspace --exclude culvert-integration --tests --no-fail-fast
	@CULVERT_GEN=1 .ci/step "chart renders" cargo test --workspace --test charts golden

.PHONY: kube
kube: ## Build the Kubernetes that tests and demo run on (minutes once; kept in the user's cache)
	$(step) "Kubernetes programs" integration/kube/build

# What data services run, and what their backups are written to.
.PHONY: engines
engines:
	$(step) "images of the engines" images/engines/build
	$(step) "servers of object stores" integration/targets/build

.PHONY: images
images: console ## Make the container images of our programs and of the engines in .work/images
	@CULVERT_CONSOLE=required .ci/step "release programs" cargo build --release --locked $(foreach name,$(shipped),-p culvert-$(name))
	@mkdir -p .work/images
	@for name in $(shipped); do \
	    .ci/step "image of the $$name" images/build "localhost/culvert-$$name:$(version)" \
	        "target/$(host)/release/culvert-$$name" ".work/images/culvert-$$name.tar"; \
	done
	@engines=$$(images/engines/build) && cp "$$engines"/*.tar "$$engines/manifest.json" .work/images/

.PHONY: clean
clean: ## Remove what was built in this tree; the user's cache stays
	@cargo clean
	@rm -rf .work
	@echo "the Kubernetes programs stay in $${CULVERT_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/culvert}" >&2

# System packages, installed when that is allowed and else named.
.PHONY: requires
requires:
	$(step) "system packages" integration/kube/requires $(if $(root),--stories)

# The programs that images and stories run. With all targets, because the tests'
# own dependencies would otherwise change features and have half of it built twice.
.PHONY: programs
programs:
	$(step) "programs" cargo build --workspace --all-targets --locked
