# Everything there is to do with this repository. `make` lists it.

CARGO ?= cargo
TOOLS := target/test-tools
NODE_STAMP := $(TOOLS)/.ws-8-axe-core-4-typescript-5
# Packages are installed by root, or by whoever may become root.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# The names that tests/it/support/tools.rs looks for.
HAS_CHROMIUM := test -n "$$CHROMIUM" || for name in chromium chromium-browser google-chrome chrome; \
	do command -v $$name >/dev/null && break; done
# The two that /bin/sh is on most small machines: the sh recipe runs under both.
HAS_SHELLS := command -v dash >/dev/null && command -v busybox >/dev/null
# `cargo test` by itself leaves out what it has no tools for.
TOOLS_REQUIRED := AGENT_METRICS_TEST_TOOLS=required

.DEFAULT_GOAL := help
.PHONY: help run check test test-tools soak bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build for speed and start the server on loopback, this machine its first agent
	$(CARGO) run --release --locked -- serve --dev

check: ## Formatting, lints and documentation, each without a warning
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --lib --document-private-items

test: test-tools ## All tests
	@command -v node >/dev/null || { echo "The page's tests need Node, and there is none"; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || \
		{ echo "The page's tests need Node 20 or later; this is $$(node --version)"; exit 1; }
	node --test tests/dashboard/*.test.mjs
	$(TOOLS_REQUIRED) $(CARGO) test --locked

# A C compiler makes the shim that lets system calls fail; Node and its package ws are the
# WebSocket client that is not ours, and TypeScript reads the types; Chromium shows the page, and
# axe-core looks at it there; curl, dash and busybox run the sh recipe.
test-tools: $(NODE_STAMP) ## What the tests need beside Rust
	@command -v cc >/dev/null || \
		{ echo "The tests need a C compiler: $(SUDO) apt-get install gcc libc6-dev"; exit 1; }
	@$(HAS_CHROMIUM) || ! command -v apt-get >/dev/null || { $(SUDO) apt-get update && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install --yes --no-install-recommends chromium; } || true
	@$(HAS_CHROMIUM) || \
		{ echo "The page's tests need Chromium: $(SUDO) apt-get install chromium" \
			"(or CHROMIUM=/path/to/it)"; exit 1; }

	@$(HAS_SHELLS) || ! command -v apt-get >/dev/null || { $(SUDO) apt-get update && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install --yes --no-install-recommends busybox dash; } || true
	@$(HAS_SHELLS) || { echo "The sh recipe's tests need two shells:" \
		"$(SUDO) apt-get install busybox dash"; exit 1; }
	@command -v curl >/dev/null || \
		{ echo "The tests need curl: $(SUDO) apt-get install curl"; exit 1; }

$(NODE_STAMP):
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ echo "The tests need Node: $(SUDO) apt-get install nodejs npm"; exit 1; }
	@mkdir -p $(TOOLS)
	npm install --prefix $(TOOLS) --no-audit --no-fund --no-save ws@8 axe-core@4 typescript@5
	@touch $@

soak: test-tools ## Ten minutes with 200 agents: neither server nor page grows
	$(TOOLS_REQUIRED) $(CARGO) test --locked --test it -- --ignored --nocapture ten_minutes

bench: test-tools ## What heartbeat and delivery cost, beside nginx + nchan (installed if missing), an update the page, and an agent its machine
	sh benches/setup.sh
	$(CARGO) bench --locked --bench compare
	$(CARGO) bench --locked --bench page
	$(CARGO) bench --locked --bench agent

clean: ## Remove what was built
	$(CARGO) clean
