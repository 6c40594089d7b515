#!/usr/bin/env bash
# Measure and test minet on one GPU, in one command and without a network:
#
#   make gpu-bundle                                                      # where there is a network
#   bash benchmarks/gpu.sh --bundle gpu-bundle --out OUT --minutes 9     # on the GPU's machine
#
# The code is that of the tree which this file is in; the bundle has a copy of it, so that its folder
# alone is enough: bash gpu-bundle/code/benchmarks/gpu.sh --bundle gpu-bundle --out OUT.
# PYTHON is the interpreter that has torch. All options: benchmarks/gpu/__main__.py.
set -euo pipefail
exec "${PYTHON:-python3}" -P "$(dirname "${BASH_SOURCE[0]}")/gpu/start.py" "$@"
