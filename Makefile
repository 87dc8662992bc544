# `make run` and `make test` need Python 3.11 or newer with venv; the README says where they need a Redis as well.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-config \
	--default-index https://pypi.org/simple --custom-compile-command "make lock" pyproject.toml
ALL := --extra fulfilment --extra fleet
.DEFAULT_GOAL := help
.PHONY: help setup run dev test drill bench check lint types imports dockerfile lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s'|'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Floodgate needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(PIP) install --require-hashes --requirement requirements/dev.lock
	@touch $@

setup: $(VENV)/.run ## build the environment from the lock file

run: setup ## start a whole shop on this machine
	@exec $(BIN)/floodgate up

dev: $(VENV)/.dev ## the environment with the tools for tests and checks

test: dev ## the tests, on servers of their own, as many files at once as there are cores
	$(BIN)/python -m pytest -m "not drill" -n auto --dist loadfile

drill: dev ## slow drills: full load, kill -9 of each part
	$(BIN)/python -m pytest -m drill --timeout 600 -rP tests/drills tests/promises tests/ops

check: lint types imports dockerfile ## everything that looks at the code without running it

lint: dev ## ruff: style and frequent mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev ## mypy, strict
	$(BIN)/mypy

imports: dev ## import-linter: who may import whom
	$(BIN)/lint-imports

dockerfile: dev ## hadolint
	$(BIN)/hadolint --failure-threshold style Dockerfile

bench: dev ## cost of an order and speed of the writer against peers; needs wrk (Debian), fills docs/benchmarks
	$(BIN)/python -m loadtest.bench --out docs/benchmarks

lock: dev ## resolve the dependencies again and write the lock files
	$(LOCK) $(ALL) --output-file requirements/production.lock
	$(LOCK) --constraints requirements/production.lock --output-file requirements/orders.lock
	$(LOCK) $(ALL) --extra embedded --constraints requirements/production.lock --output-file requirements/run.lock
	$(LOCK) $(ALL) --extra embedded --extra dev --constraints requirements/run.lock --output-file requirements/dev.lock

clean: ## remove the environment and the caches (never the data)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis dist
