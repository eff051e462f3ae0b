# Targets are listed by `make help`. What they need is installed into .venv, once, by .ci/setup.
# ARGS goes to the program: make run ARGS="--port 9000", make test ARGS="tests/log -x".

.DEFAULT_GOAL := help
BIN := .venv/bin
SCHEMA := protocol/schema/midstream.schema.json
ASYNCAPI := protocol/schema/asyncapi.json
JOBS ?= 2
export PYTHON

.PHONY: help run console test check format schema bench bench-peers wheel clean setup-run setup-dev

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: setup-run ## Start the server (first installs it, and the embedded model, into .venv, and builds the console)
	@.ci/clients console || echo "midstream: it is served without the console; everything else works" >&2
	@$(BIN)/midstream serve $(ARGS)

console: setup-run ## Build the page that the server shows at /, unless it is fresh
	@.ci/clients console

test: setup-dev ## Run every suite (with ARGS: pytest alone, with them)
	@.ci/clients console
ifneq ($(ARGS),)
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)
else
	@.ci/clients build
	$(BIN)/python -m pytest -n $(JOBS)
	@.ci/clients test
endif

check: setup-dev ## Lint, types, layers, and that generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m midstream_protocol.schema --check $(SCHEMA)
	$(BIN)/python -m midstream_protocol.asyncapi --check $(ASYNCAPI)
	@.ci/clients check

format: setup-dev ## Format the code and fix what can be fixed mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: setup-dev ## Generate the JSON Schema and the AsyncAPI document of the protocol anew
	$(BIN)/python -m midstream_protocol.schema --write $(SCHEMA)
	$(BIN)/python -m midstream_protocol.asyncapi --write $(ASYNCAPI)

bench: setup-dev ## Measure the whole path beside the raw stack; write bench/REPORT.md (fifteen minutes; ARGS="--quick": two)
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
		$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt --group bench || \
		echo "midstream: without plots and profile: the bench group cannot be installed" >&2
	$(BIN)/python bench/run.py $(ARGS)

bench-peers: setup-dev ## Measure what people would use instead, in an environment of its own (bench/.peers)
	$(BIN)/python bench/run.py --only peers $(ARGS)

wheel: setup-dev ## Build the wheel, with the console in it, into dist/
	@.ci/clients console
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove .venv, what was built, and caches; stored runs stay
	rm -rf .venv dist artefacts server/midstream/console clients/js/dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf clients/*/node_modules examples/*/node_modules
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

setup-run:
	@.ci/setup run

setup-dev:
	@.ci/setup dev
