# minet: `make repro` and `make test` set up what is missing and need nothing done before them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup all-groups repro all experiments test test-slow lint lock wheel zoo chaos bench-data bench-train gpu-bundle clean
.NOTPARALLEL:

ALL := zoo reports loggers verify dev
# torch's build: cuda, which runs on a CPU too, or cpu, which is small
TORCH ?=
# which dependency groups of pyproject.toml `make setup` adds to what the pipeline needs
GROUPS ?= $(if $(filter cpu,$(TORCH)),,$(ALL))
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
BENCH_FLAGS ?=
CHAOS_FLAGS ?=
GPU_BUNDLE ?= gpu-bundle
DIST := dist
EXPERIMENTS_FLAGS ?=
JOBS ?= 2
LOCK_FLAGS ?=
RAY ?=
ROWS ?=
ZOO_FLAGS ?=

export PYTHON TORCH
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## a virtual environment: 7 GB; TORCH=cpu 1.5 GB; GROUPS="zoo ..." (docs/install.md)
	@tools/setup.sh $(GROUPS)

repro: $(VENV)/.ready ## run the pipeline: images to metrics and plots
	@dvc repro

all: $(VENV)/.ready ## every model, beside each other: metrics/models.csv
	@python -c 'from dvc.utils.hydra import apply_overrides; from minet.models.registry import MODELS; \
	  apply_overrides("params.yaml", ["also=[" + ",".join(MODELS) + "]"])'
	@dvc repro

# Without what changes no result or has the same value in all, and without failed experiments, for
# which DVC shows the metrics of the commit that they started from. Wider than a table ever is:
# DVC cuts off what does not fit, from the right, and the settings are there.
experiments: $(VENV)/.ready ## what experiments changed and what came of it
	@COLUMNS=400 dvc exp show --no-pager --only-changed --hide-failed \
	  --keep 'model$$|accuracy|val_accuracy' --drop 'macro_f1|loss|parameters|macs|also|.*/|resolved' \
	  --drop 'Created|Executor|data.cache|train.(processes|save_every_s|tensorboard|dvclive)' \
	  $(EXPERIMENTS_FLAGS)

test: all-groups lint ## lint, types and tests
	@tools/debian.sh browser || echo "no Chromium: tests of pages are left out" >&2
	@pytest -n 2 --dist loadscope --no-loadscope-reorder

test-slow: all-groups ## every model by the pipeline, the wheel, the zoo on Ray
	@tools/setup.sh ray
	@pytest -m slow

lint: all-groups ## format, lint, types and the order of the rooms
	@ruff format --check . && ruff check . && mypy && lint-imports --no-logo

lock: $(VENV)/.ready ## resolve pyproject.toml into requirements.lock (LOCK_FLAGS=--upgrade: newest versions)
	@uv pip compile pyproject.toml $(ALL:%=--group %) --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header $(LOCK_FLAGS) -o requirements.lock >/dev/null

wheel: ## FFCV as a wheel for PYTHON, for machines without Debian packages
	@tools/check-python.sh
	@tools/debian.sh ffcv
	@tools/wheel.sh "$(PYTHON)" "$(DIST)"

zoo: $(VENV)/.ready ## experiments of five reports, or ROWS="...", JOBS at a time or RAY=<address>
	@tools/setup.sh zoo $(if $(RAY),ray)
	@python -m minet zoo $(if $(RAY),--ray $(RAY),--jobs $(JOBS)) $(if $(ROWS),--rows $(ROWS)) $(ZOO_FLAGS)

chaos: $(VENV)/.ready ## kill training 20 times at random moments, compare with an undisturbed run
	@python -m tests.helpers.chaos $(CHAOS_FLAGS)

bench-data: $(BENCH)/.ready ## the data path beside its peers: 20 minutes (BENCH_FLAGS=--quick: two)
	@$(BENCH)/bin/python -m benchmarks.data $(BENCH_FLAGS)

bench-train: $(BENCH)/.ready ## the training step beside other loops: 12 minutes (BENCH_FLAGS=--quick: one)
	@$(BENCH)/bin/python -m benchmarks.train $(BENCH_FLAGS)

gpu-bundle: $(VENV)/.ready ## all that benchmarks/gpu.sh needs on a GPU's machine without a network
	@python -m benchmarks.gpu.bundle $(GPU_BUNDLE)

clean: ## remove both virtual environments
	@rm -rf $(VENV) $(BENCH)

all-groups:
	@tools/setup.sh $(ALL)

# without .venv all of GROUPS; a lock that changed is installed with the groups that .venv has
$(VENV)/.ready: requirements.lock
	@tools/setup.sh $(if $(wildcard $@),,$(GROUPS))

# what is locked overrides what a peer asks for; a peer that cannot be installed is left out, and the
# record names it
$(BENCH)/.ready: requirements.lock pyproject.toml $(VENV)/.ready
	@tools/debian.sh ffcv
	@$(VENV)/bin/python -m venv --clear --without-pip $(BENCH)
	@uv pip install -q --python $(BENCH)/bin/python --compile-bytecode --require-hashes \
	  -r requirements.lock
	@python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["bench"], sep="\n")' | \
	while read -r peer; do \
	  uv pip install -q --python $(BENCH)/bin/python --compile-bytecode \
	    --overrides requirements.lock "$$peer" || \
	    echo "left out: $$peer" >&2; \
	done
	@tools/debian.sh ffmpeg || echo "left out: FFmpeg, with which SPDL decodes" >&2
	@touch $@
