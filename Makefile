# make demo   sets up and runs the main job on a small set
# make test   sets up and runs every check
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

help:  ## show what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the pinned versions

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "gsco needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/python-venv $(PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## run the main job on BreastMNIST (or phantoms) and name the page to read
	$(BIN)/gsco models pull nano
	$(BIN)/gsco demo

test: $(READY) lint  ## run all checks
	$(BIN)/gsco models pull nano
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(READY)  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)  ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove the environment and caches of tools
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
