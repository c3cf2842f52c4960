# `make` is the only tool besides Python >= 3.11; everything else is installed into .venv from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, every process would compile torch anew.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help setup demo check test test-long test-gpu bench train-demo clean

help:  ## List these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## Make .venv and install everything, pinned

$(READY): pyproject.toml constraints.txt hatch_build.py $(wildcard tasks/arithmetic/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; found " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# The pip that comes with Python 3.11 takes more than twice as long.
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[dev]'
	touch $@

demo: $(READY)  ## Run the nightly refresh on the bundled real models, offline
	$(BIN)/cocktail demo

check: $(READY)  ## Lint, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

test: check  ## Everything CI runs
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-long: $(READY)  ## Campaigns too long for CI
	$(INSTALL) --editable '.[dev,ray]'
	$(BIN)/python -m pytest -m long

test-gpu: $(READY)  ## Tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

bench: $(READY)  ## Speed, side by side in one run
	$(BIN)/python -m tests.benchmarks.bench_merge $(if $(ORACLES),--oracles $(ORACLES))
	$(BIN)/python -m tests.benchmarks.bench_large
	$(BIN)/python -m tests.benchmarks.bench_score $(if $(ORACLES),--oracles $(ORACLES))
	$(BIN)/python -m tests.benchmarks.bench_mixtures
	$(BIN)/python -m tests.benchmarks.bench_overhead

train-demo: $(READY)  ## Train the bundled demo models again (about 10 minutes)
	$(INSTALL) --editable '.[demo]'
	$(BIN)/python deployments/demo/train.py

clean:  ## Remove .venv and what tools left
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis
