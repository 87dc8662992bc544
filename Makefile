# `make run` and `make test` need Python 3.11 or newer with venv, on some platforms also servers: see the README.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-config \
	--default-index https://pypi.org/simple --custom-compile-command "make lock" pyproject.toml
ALL := --extra fulfilment --extra fleet --extra aftersales --extra knowledge --extra taxonomy --extra drand --extra s3 --extra search
.DEFAULT_GOAL := help
.PHONY: help setup run dev compile test test-compiled drill drill-room fuzz loadtest bench check lint types imports dockerfile lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s'|'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "cannot build the environment: Python is older than 3.11; use make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(PIP) install --require-hashes --requirement requirements/dev.lock
	@touch $@

setup: $(VENV)/.run ## build the environment from the lock file

run: setup ## run a whole shop on this machine
	@exec $(BIN)/floodgate up

dev: $(VENV)/.dev ## build the environment with the tools for tests and checks

# Files begin in the order of tests/conftest.py. Compiled files are kept, because the tests start many processes.
test: dev ## run the tests on their own servers, three files per two cores at a time
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not drill" -n auto --dist loadfile --no-loadscope-reorder

# Compiled modules lie in build/compiled and go first; PYTHONSAFEPATH keeps the sources in the working directory out.
COMPILED := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/compiled
compile: dev ## compile the order path into build/compiled, if there is a C compiler
	$(BIN)/python hatch_build.py build/compiled

test-compiled: compile ## run the tests of the order path on its compiled modules
	$(COMPILED):$(CURDIR) $(BIN)/python -m pytest -m "not drill" -o "pythonpath=build/compiled ." -n auto --dist loadfile \
		--no-loadscope-reorder tests/gateway tests/lua tests/unit tests/promises

drill: dev ## run the slow drills: full load, kill -9 of each part
	$(BIN)/python -m pytest -m drill --timeout 600 -rP tests/drills tests/promises tests/ops
	FLOODGATE_TEST_EXAMPLES=20 $(BIN)/python -m pytest --timeout 1800 tests/promises/test_aftersales_model.py

drill-room: dev ## run the drill of a waiting room with 200,000 customers
	FLOODGATE_DRILL_CUSTOMERS=200000 $(BIN)/python -m pytest -m drill --timeout 1800 -rP tests/drills/test_waiting_room.py

fuzz: dev ## generate 100,000 inputs for every body, webhook and file, and 20 for each operation of the API
	FLOODGATE_TEST_EXAMPLES=6000 $(BIN)/python -m pytest -n auto tests/gateway/test_generated_bodies.py \
		tests/gateway/test_generated_webhooks.py tests/commerce/test_generated_files.py
	FLOODGATE_TEST_EXAMPLES=20 $(BIN)/python -m pytest -n auto tests/gateway/test_openapi.py

check: lint types imports dockerfile ## run all static checks

lint: dev ## check style and frequent mistakes with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev ## check types with mypy, strict
	$(BIN)/mypy

imports: dev ## check the import rules with import-linter
	$(BIN)/lint-imports

dockerfile: dev ## check the Dockerfile with hadolint
	$(BIN)/hadolint --failure-threshold style Dockerfile

SCENARIO ?= midnight_spike
BASE ?= http://127.0.0.1:8080
USERS ?= 500
TIME ?= 30s
REPORT ?= .floodgate/loadtest
loadtest: dev ## load the shop of `make run`: SCENARIO, BASE, USERS, TIME, OPTIONS; charts and CSV in REPORT
	$(BIN)/locust -f loadtest/scenarios/$(SCENARIO).py --host $(BASE) --headless --only-summary -u $(USERS) -r 100 \
		-t $(TIME) --html $(REPORT)/report.html --csv $(REPORT)/figures $(OPTIONS)

bench: compile ## measure orders, the writer, a rush and whole orders into docs/benchmarks; needs wrk
	$(COMPILED) $(BIN)/python -m loadtest.bench --out docs/benchmarks

lock: dev ## resolve the dependencies again and write the lock files
	$(LOCK) $(ALL) --output-file requirements/production.lock
	$(LOCK) --constraints requirements/production.lock --output-file requirements/orders.lock
	$(LOCK) $(ALL) --extra embedded --constraints requirements/production.lock --output-file requirements/run.lock
	$(LOCK) $(ALL) --extra embedded --extra evaluation --extra dev --constraints requirements/run.lock --output-file requirements/dev.lock

clean: ## remove the environment and the caches (never the data)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis build dist
