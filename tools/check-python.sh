#!/bin/bash
# tools/check-python.sh: fail unless PYTHON (python3) is a version that minet runs on.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
  echo "error: $("$python" --version 2>&1); minet needs Python 3.11 to 3.13 (PYTHON=python3.x make ...)" >&2
  exit 1
}
