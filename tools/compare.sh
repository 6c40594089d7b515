#!/usr/bin/env bash
# Compare the results of the working tree with those of a commit: tables and a page of plots.
# Usage: tools/compare.sh COMMIT FOLDER
set -euo pipefail
base=$1 out=$(realpath -m "$2")
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

mkdir -p "$out"
{
  echo "## $(git describe --always --dirty) compared with $(git describe --always "$base")"
  for what in metrics params; do
    echo
    table=$(dvc "$what" diff --md "$base")
    echo "${table:-No $what changed.}"
  done
} > "$out/comparison.md"
dvc plots diff "$base" --out "$out/plots" >/dev/null
cat "$out/comparison.md"
