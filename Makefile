# Every target makes or refreshes the environment it needs; `make help` lists them.
PYTHON ?= python3
WORKERS ?= 2
BIN = .venv/bin
STAMP = .venv/.up-to-date
PEERS = .venv/.peers
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# One file to a worker, in the order of tests/conftest.py. One thread in each: the tensors of tests are small, and a pool of
# threads crawls on cores that others use too.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Compiled modules are kept, whatever the environment says: without them, each process of the tests compiles all of them.
unexport PYTHONDONTWRITEBYTECODE
# Targets that run side by side print one after the other, where this make can do that.
SYNC = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: help setup audit test quick lint format types unit coverage docs bench chaos vulnerabilities constraints clean
.DEFAULT_GOAL = help

help: ## say what every target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv with pinned packages; does nothing when it is up to date

# torch first and alone: what comes later then finds it installed and does not choose another build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"underfire needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}; try: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch setuptools
	$(PIP) --no-build-isolation --editable '.[dev]'
	@$(PIP) --no-build-isolation --editable '.[scale]' || echo 'Ray has no wheel for this Python: its tests will be skipped'
	@touch $@

audit: $(STAMP) ## attack the embedded digit classifier and write a report to runs/default
	$(BIN)/underfire audit --out runs/default

test: $(STAMP) ## everything that must pass: lint, types, docs, tests
	@$(MAKE) --no-print-directory --jobs 3 $(SYNC) lint types docs
	@$(MAKE) --no-print-directory unit

quick: $(STAMP) ## the tests without those that take 0.2 s or more, and without a browser: a minute
	$(PYTEST) -m 'not slow and not browser'

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## mend style and formatting where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/generate.py

types: $(STAMP) ## check types
	$(BIN)/mypy

unit: $(STAMP) ## run the tests and doctests
	$(PYTEST) --durations=20

coverage: $(STAMP) ## run the tests and doctests and count the lines that they reach, at least 90 %; takes half as long again
	$(PYTEST) --cov --cov-report=term

docs: $(STAMP) ## build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

chaos: $(STAMP) ## kill runs, fill disks, flip bits, feed hostile files; writes docs/reliability.md (ONLY="kills growth": these parts)
	$(BIN)/python -m tools.chaos $(if $(ONLY),--only $(ONLY))

vulnerabilities: $(STAMP) ## look up known vulnerabilities of the pinned packages, if the package registry has pip-audit
	@if $(PIP) pip-audit 2>/dev/null; then $(BIN)/python -m tools.vulnerabilities; \
	else echo 'the package registry has no pip-audit: known vulnerabilities were not looked up'; fi

constraints: $(STAMP) ## write the hashes of the pinned packages, for this platform, to constraints-hashed.txt
	$(BIN)/python -m tools.constraints

bench: $(PEERS) ## measure speed against a bare loop and the peers; writes benchmarks/results and docs/benchmarks.md
	$(BIN)/python -m benchmarks

$(PEERS): $(STAMP) benchmarks/peers.txt
	$(PIP) --no-deps --requirement benchmarks/peers.txt
	@touch $@

clean: ## remove the environment and everything that was built
	rm -rf .venv build site runs .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
