# minet: `make repro` and `make test` set up what is missing and need nothing done before them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup repro test test-slow lint lock wheel zoo chaos bench-data bench-train clean

VENV := .venv
BENCH := .venv-bench
BENCH_FLAGS ?=
CHAOS_FLAGS ?=
JOBS ?= 2
RAY ?=
ROWS ?=
ZOO_FLAGS ?=
PYTHON ?= python3
DIST := dist
UV_VERSION := 0.13.9
# the zoo's page is tested in a real browser; without one, those tests say that they were left out
BROWSER := chromium chromium-driver
# what FFCV's build needs from Debian or Ubuntu
PACKAGES := build-essential pkg-config libopencv-dev libturbojpeg0-dev python3-dev python3-venv

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

define check-python
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
  { echo "error: $$($(PYTHON) --version 2>&1); minet needs Python 3.11 to 3.13 (PYTHON=python3.x make ...)" >&2; exit 1; }
endef

define install-packages
@missing=""; \
pkg-config --exists opencv4 libturbojpeg 2>/dev/null || missing=yes; \
command -v c++ >/dev/null || missing=yes; \
$(PYTHON) -c 'import ensurepip, sysconfig, pathlib as p; \
  assert p.Path(sysconfig.get_paths()["include"], "Python.h").exists()' 2>/dev/null || missing=yes; \
if [ -n "$$missing" ]; then \
  as_root=""; [ "$$(id -u)" = 0 ] || as_root=sudo; \
  command -v apt-get >/dev/null || { echo "error: FFCV needs these Debian packages: $(PACKAGES)" >&2; exit 1; }; \
  echo "installing Debian packages: $(PACKAGES)"; \
  $$as_root apt-get update -q && $$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends $(PACKAGES); \
fi
endef

define install-browser
@command -v chromedriver >/dev/null || { \
  as_root=""; [ "$$(id -u)" = 0 ] || as_root=sudo; \
  command -v apt-get >/dev/null && echo "installing Debian packages: $(BROWSER)" && \
    $$as_root apt-get update -q && $$as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends $(BROWSER); \
} || echo "no Chromium: tests of the zoo's page are left out" >&2
endef

# what is locked overrides what Ray asks for
define install-ray
@uv pip install -q --compile-bytecode --overrides requirements.lock --group ray
endef

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## Debian packages and a virtual environment, once (about 6.5 GB)

repro: $(VENV)/.ready ## run the pipeline: images to metrics and plots
	@dvc repro

test: $(VENV)/.ready lint ## lint, types and tests: some minutes
	$(install-browser)
	@pytest

test-slow: $(VENV)/.ready ## every model by the pipeline, the wheel, the zoo on Ray: some minutes
	$(install-ray)
	@pytest -m slow

lint: $(VENV)/.ready ## format, lint, types and the order of the rooms
	@ruff format --check . && ruff check . && mypy && lint-imports --no-logo

lock: $(VENV)/.ready ## resolve pyproject.toml into requirements.lock
	@uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --upgrade -o requirements.lock

wheel: ## FFCV as a wheel for PYTHON, for machines without Debian packages
	$(check-python)
	$(install-packages)
	@tools/wheel.sh "$(PYTHON)" "$(DIST)"

zoo: $(VENV)/.ready ## experiments of five reports, or ROWS="...", JOBS at a time or RAY=<address>
ifeq ($(RAY),)
	@python -m minet zoo --jobs $(JOBS) $(if $(ROWS),--rows $(ROWS)) $(ZOO_FLAGS)
else
	$(install-ray)
	@python -m minet zoo --ray $(RAY) $(if $(ROWS),--rows $(ROWS)) $(ZOO_FLAGS)
endif

chaos: $(VENV)/.ready ## kill training 20 times at random moments, hold the result against a run left alone
	@python -m tests.helpers.chaos $(CHAOS_FLAGS)

bench-data: $(BENCH)/.ready ## the data path beside its peers: 20 minutes (BENCH_FLAGS=--quick: two)
	@$(BENCH)/bin/python -m benchmarks.data $(BENCH_FLAGS)

bench-train: $(BENCH)/.ready ## the training step beside other loops: 12 minutes (BENCH_FLAGS=--quick: one)
	@$(BENCH)/bin/python -m benchmarks.train $(BENCH_FLAGS)

clean: ## remove what set-up made
	@rm -rf $(VENV) $(BENCH)

$(VENV)/.ready: requirements.lock
	$(check-python)
	$(install-packages)
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install -q uv==$(UV_VERSION)
	@$(VENV)/bin/uv pip install -q --python $(VENV)/bin/python --compile-bytecode --require-hashes \
	  -r requirements.lock
	@touch $@

# what is locked overrides what a peer asks for; one that cannot be had is left out, as the record says
$(BENCH)/.ready: requirements.lock pyproject.toml $(VENV)/.ready
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
	@as_root=""; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	command -v ffmpeg >/dev/null || { $$as_root apt-get update -q && \
	  $$as_root apt-get install -q -y --no-install-recommends ffmpeg; } || \
	  echo "left out: FFmpeg, with which SPDL decodes" >&2
	@touch $@
