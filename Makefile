# The commands of this repository. `make demo` and `make test` do all the set-up themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
SOURCES := tokenmesh chaincode tests benchmarks examples docs
SOFTHSM := command -v softhsm2-util >/dev/null || { [ "$$(id -u)" = 0 ] && echo "installing Debian's softhsm2" && \
	apt-get update -qq && apt-get install -qq -y softhsm2 >/dev/null; }

.PHONY: help demo test check format bench simulate chaos fuzz clean jaeger

help: ## Show the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo $(if $(findstring fabric,$(ARGS)),$(VENV)/.fabric) $(if $(findstring otlp,$(ARGS)),$(VENV)/.otlp) ## Run a shop of ten services that pay each other, with trouble made on purpose
	@$(BIN)/tokenmesh demo $(ARGS)

test: jaeger check ## Check everything: format, lint, types, layers, tests
	@echo "tests: about 16 minutes on two cores; and some 6 more the first time, if Go is there: it builds Fabric (3)" \
		"and, behind the tests, Jaeger (5; $(VENV)/jaeger.txt says how far)"
	@rm -f .coverage .coverage.*
	@$(BIN)/tokenmesh fabric tools >/dev/null || echo "so the tests on a Fabric network are skipped"
	@$(SOFTHSM) || echo "so the test of keys on a hardware token is skipped: install Debian's softhsm2"
	@$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report= $(ARGS)
	@$(BIN)/coverage report --format=total | sed 's/^/coverage, percent: /'

# The tracing backend of some tests, which are the only ones to wait for it.
jaeger: $(VENV)/.dev
	@nice -n 19 $(BIN)/python tests/support/jaeger_build.py >$(VENV)/jaeger.txt 2>&1 &

check: $(VENV)/.dev ## Format, lint, types and layers, without the tests
	@echo "format"; $(BIN)/ruff format --check --quiet $(SOURCES)
	@echo "lint"; $(BIN)/ruff check --quiet $(SOURCES)
	@echo "types"; $(BIN)/mypy --no-error-summary tokenmesh chaincode/tokenmesh_chaincode
	@echo "layers"; $(BIN)/lint-imports --no-logo > $(VENV)/layers.txt || { cat $(VENV)/layers.txt; exit 1; }

format: $(VENV)/.dev ## Format the code, mend what lint can mend
	@$(BIN)/ruff check --quiet --fix $(SOURCES); $(BIN)/ruff format --quiet $(SOURCES)

bench: $(VENV)/.dev ## Measure the hot path, with and without traces, both ledgers, and what lost responses cost
	@$(BIN)/python benchmarks/hot_path.py
	@$(BIN)/python benchmarks/hot_path.py --otel
	@$(BIN)/python benchmarks/refusals.py
	@$(BIN)/python benchmarks/embedded_ledger.py
	@if $(BIN)/tokenmesh fabric tools >/dev/null; then $(BIN)/python benchmarks/fabric.py; \
		else echo "so the ledger on Fabric is not measured"; fi
	@$(BIN)/python benchmarks/lossy.py $$($(BIN)/tokenmesh fabric tools >/dev/null 2>&1 || \
		echo --systems tokenmesh_embedded,tokenmesh_without_retries,x402,pympp)

chaos: $(VENV)/.dev ## Kill and stop everything at random for SECONDS on LEDGER (embedded, fabric, both) from SEED; everything must add up
	@PYTHONPATH=tests $(BIN)/python -m chaos --seconds $(or $(SECONDS),600) --ledger $(or $(LEDGER),both) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.dev ## Send INPUTS (a million) spoilt inputs to everything that strangers can reach; SEED=N, ARGS="--only flask"
	@$(BIN)/python tests/fuzz/run.py --inputs $(or $(INPUTS),1000000) $(if $(SEED),--seed $(SEED)) $(ARGS)

SEEDS ?= 1:1000
simulate: $(VENV)/.dev ## Break everything between two services, from seeds, and audit it: SEEDS=1:1000
	@cd tests && ../$(BIN)/python -m simulation $(SEEDS) $(ARGS)

clean: ## Remove the environment and everything made here
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The environment. Made again when the metadata changes; at once otherwise.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tokenmesh needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && echo "installing Debian's python3-venv" >&2 && \
		  apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null; } || \
		{ echo "this Python cannot make environments: install Debian's python3-venv"; exit 2; }
	@echo "making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing tokenmesh and what the demo needs into $(VENV) (about half a minute)" >&2
	@$(PIP) -e '.[demo]' && touch $@

$(VENV)/.fabric: pyproject.toml | $(VENV)/.demo
	@echo "installing what a ledger on Fabric needs into $(VENV)" >&2
	@$(PIP) -e '.[demo,fabric]' && touch $@

$(VENV)/.otlp: pyproject.toml | $(VENV)/.demo
	@echo "installing what the demo needs to export traces into $(VENV)" >&2
	@$(PIP) -e '.[demo,demo-otlp]' && touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing tokenmesh and what the tests need into $(VENV) (about a minute)" >&2
	@$(PIP) -e '.[dev]' && touch $@ $(VENV)/.demo $(VENV)/.fabric $(VENV)/.otlp
