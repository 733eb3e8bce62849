# The two commands are `make serve` and `make test`; `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

# What pip is told in every case: exactly the locked files, no questions, no upgrade notice.
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --require-hashes

.DEFAULT_GOAL := help
.PHONY: help install install-litellm serve test test-llama test-long test-stack test-docker demo check format bench gpu-test lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/runtime.installed  ## set up .venv with the locked dependencies

serve: $(VENV)/runtime.installed  ## serve the embedded model (or LLM_PROFILE_NAME, MODEL_PATH ...)
	@$(PY) tools/foreground.py $(PY) server.py

test: $(VENV)/dev.installed  ## everything the tests need, then the tests
	@$(PY) -m pytest

test-llama: $(VENV)/dev.installed  ## the tests that need a llama-server (LLAMA_SERVER_PATH, else on PATH)
	@$(PY) -m pytest -m 'llama and not long'

test-long: $(VENV)/dev.installed  ## the long form of the tests of faults and of the soak: 10,000 requests, deadlines waited for
	@$(PY) -m pytest -m 'long and not llama' tests/faults tests/e2e

test-stack: $(VENV)/dev.installed build/litellm/installed  ## two sidecars behind a real LiteLLM, killed and restarted under load
	@$(PY) -m pytest -m stack tests/stack

install-litellm: build/litellm/installed  ## LiteLLM in an environment of its own, for test-stack (600 MB)

test-docker: $(VENV)/dev.installed  ## builds the CPU images and tests them on this machine's Docker engine
	@$(PY) -m pytest tests/docker -s

demo: $(VENV)/dev.installed  ## three strikes, the drain, a stream that ends whole, the restart: as a time line (Docker)
	@$(PY) -m tools.demo

check: $(VENV)/dev.installed  ## formatting, lint, types, import contracts
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

format: $(VENV)/dev.installed  ## let ruff write what `check` wants
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(VENV)/dev.installed  ## measure, write docs/benchmarks.json and the tables made from it
	@$(PY) -m tools.bench

gpu-test: $(VENV)/dev.installed  ## on an NVIDIA card: the engine's tests, its speed, and VRAM_BUDGET kept under load
	@$(PY) -m tools.bench.gpu

lock: $(VENV)/dev.installed  ## resolve requirements/*.in anew (needs uv)
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/runtime.in -o requirements/runtime.txt
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -c requirements/runtime.txt requirements/watchdog.in -o requirements/watchdog.txt
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/dev.in -o requirements/dev.txt
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/llamacpp.in -o requirements/llamacpp.txt
	@uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/litellm.in -o requirements/litellm.txt

clean:  ## remove .venv and what was built
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/runtime.installed: requirements/runtime.txt
	@$(PYTHON) tools/preflight.py
	@echo "Installing into $(VENV): about 3 GB to download, 6 GB on disk, some minutes ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements/runtime.txt
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s/bin/python" -m sidecar "$$@"\n' '$(CURDIR)' '$(CURDIR)/$(VENV)' > $(VENV)/bin/llm-sidecar
	@chmod +x $(VENV)/bin/llm-sidecar
	@touch $@

$(VENV)/dev.installed: requirements/dev.txt $(VENV)/runtime.installed
	@$(PIP) -r requirements/dev.txt
	@touch $@

build/litellm/installed: requirements/litellm.txt
	@$(PYTHON) -m venv build/litellm
	@build/litellm/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps --no-compile -r requirements/litellm.txt
	@touch $@
