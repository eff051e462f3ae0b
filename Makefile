# Targets are listed by `make help`. What they need is installed into .venv, once, by .ci/setup.
# ARGS goes to the program: make run ARGS="--port 9000", make test ARGS="tests/log -x".

.DEFAULT_GOAL := help
BIN := .venv/bin
SCHEMA := protocol/schema/midstream.schema.json
JOBS ?= 2
export PYTHON

.PHONY: help run test check format schema bench bench-peers wheel clean setup-run setup-dev

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: setup-run ## Start the server (first installs it, and the embedded model, into .venv)
	@$(BIN)/midstream serve $(ARGS)

test: setup-dev ## Run every suite
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)
ifneq ($(wildcard clients/js/package.json),)
	@node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null || \
		{ echo "midstream: the JavaScript suite needs Node 20 or newer and npm (https://nodejs.org)" >&2; exit 1; }
	cd clients/js && npm ci --no-audit --no-fund && npm test
endif

check: setup-dev ## Lint, types, layers, and that generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m midstream_protocol.schema --check $(SCHEMA)

format: setup-dev ## Format the code and fix what can be fixed mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: setup-dev ## Generate the JSON Schema of the protocol anew
	$(BIN)/python -m midstream_protocol.schema --write $(SCHEMA)

bench: setup-dev ## Measure the whole path beside the raw stack; write bench/REPORT.md (fifteen minutes; ARGS="--quick": two)
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
		$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt --group bench || \
		echo "midstream: without plots and profile: the bench group cannot be installed" >&2
	$(BIN)/python bench/run.py $(ARGS)

bench-peers: setup-dev ## Measure what people would use instead, in an environment of its own (bench/.peers)
	$(BIN)/python bench/run.py --only peers $(ARGS)

wheel: setup-dev ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove .venv, dist and caches; stored runs stay
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

setup-run:
	@.ci/setup run

setup-dev:
	@.ci/setup dev
