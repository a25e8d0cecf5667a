# `make` lists what there is. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help pipeline check test format bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ropeway needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(STAMP): $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

$(VENV)/.runtime: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

pipeline: $(VENV)/.runtime  ## set up, and serve the pipeline example on 127.0.0.1:8001
	$(BIN)/python -m examples.pipeline

check: $(STAMP)  ## format, lint, types, layers: what must hold before anything is run
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

test: $(STAMP) check  ## set up, check and run every test
	$(BIN)/python -m pytest

format: $(STAMP)  ## rewrite files as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## the tables of benchmarks/RESULTS.md, measured here (takes a while)
	$(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
