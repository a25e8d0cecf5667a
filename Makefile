# `make` lists what there is. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help pipeline gateway chat rag crops check test format bench clean

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

$(VENV)/.models: $(STAMP) src/ropeway/models/store.py
	$(BIN)/python -m ropeway.models.fetch
	@touch $@

# The tests look at the example pages in a real browser. $$CHROMIUM names another; without root, install it beforehand.
$(VENV)/.browser: $(VENV)/.made
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	@touch $@

pipeline: $(VENV)/.runtime  ## set up, and serve the pipeline example on 127.0.0.1:8001
	$(BIN)/python -m examples.pipeline

gateway: $(STAMP)  ## set up, and serve the gateway example on 127.0.0.1:8002
	$(BIN)/python -m examples.gateway

chat: $(STAMP)  ## set up, and serve the chat example on 127.0.0.1:8004
	$(BIN)/python -m examples.websocket_chat

rag: $(STAMP) $(VENV)/.models  ## set up (two small models), and serve answers from documents on 127.0.0.1:8005
	$(BIN)/python -m examples.rag

crops: $(STAMP)  ## set up, and serve crop analysis of satellite images on 127.0.0.1:8006
	$(BIN)/python -m examples.crops

check: $(STAMP)  ## format, lint, types, layers: what must hold before anything is run
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

$(VENV)/.sdks: $(STAMP) $(wildcard tests/openai/sdks/*.txt)
	$(BIN)/python tests/openai/sdks/install.py
	@touch $@

test: $(STAMP) $(VENV)/.models $(VENV)/.sdks $(VENV)/.browser check  ## set up (two small models, OpenAI's SDKs, Chromium), check and run every test
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

format: $(STAMP)  ## rewrite files as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## the tables of benchmarks/RESULTS.md, measured here (takes a while)
	$(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
