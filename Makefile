# Every target does its own set-up: the stamp files below say what is up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two modules of tests at a time: most of what is not in tests/unit waits for other processes.
TWO := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup system up test test-fast test-long check faults soak bench bench-peers lock clean

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/uv: requirements/uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "citybrain needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock
	@touch $@

$(VENV)/.installed: $(VENV)/bin/uv requirements/all.lock pyproject.toml
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/all.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.fetched: $(VENV)/.installed scripts/fetch.sh $(wildcard citybrain/jars/*.toml dashboards/page/package-lock.json)
	scripts/fetch.sh
	@touch $@

setup: $(VENV)/.fetched ## Install everything into .venv, from the lock files

system: setup ## Install the system packages that the tests use (Chromium, promtool, Mosquitto)
	scripts/system-packages.sh

up: setup ## Run the built-in city; Ctrl-C stops it
	$(BIN)/citybrain up

test: system check ## All tests at everyday size
	$(BIN)/pytest $(TWO) -m "not long" tests/unit
	$(BIN)/pytest $(TWO) -m "not long" --ignore tests/unit tests

test-fast: setup ## Only what needs no broker, browser or simulator
	$(BIN)/pytest -q -m "not long" tests/unit

test-long: system check ## The same tests at full size
	CITYBRAIN_TEST_SIZE=full $(BIN)/pytest --timeout 28800 tests

check: setup ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: setup ## A real cluster through its bad days: FAULTS=12 SEED=1 ARGS="--readings 100000000"
	$(BIN)/python -m tests.faults --faults $(or $(FAULTS),12) --seed $(or $(SEED),1) $(ARGS)

soak: setup ## The engine at work for HOURS=2: memory, files, topics and lag must stay flat
	$(BIN)/python -m tests.faults.soak --hours $(or $(HOURS),2) $(ARGS)

bench: setup ## Figures, as JSON and a table
	$(BIN)/python -m benchmarks

bench-peers: setup ## The same work in Bytewax and Quix Streams, in an environment of their own
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-peers
	$(BIN)/uv pip sync --quiet --python .venv-peers/bin/python --require-hashes requirements/peers.lock
	$(BIN)/python -m benchmarks peers

lock: $(VENV)/bin/uv ## Resolve the lock files anew
	$(BIN)/uv pip compile --quiet --upgrade requirements/uv.in --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -o requirements/uv.lock
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --all-extras --group dev --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -o requirements/all.lock
	$(BIN)/uv pip compile --quiet --upgrade requirements/node.in --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -o requirements/node.lock
	$(BIN)/uv pip compile --quiet --upgrade requirements/peers.in --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -o requirements/peers.lock
	$(BIN)/uv pip compile --quiet --upgrade requirements/build.in --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -c requirements/all.lock -o requirements/build.lock
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --extra edge --extra engine --extra centre --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 -c requirements/all.lock -o requirements/image.lock

clean: ## Remove what make made
	rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
