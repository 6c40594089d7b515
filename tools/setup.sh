#!/bin/bash
# tools/setup.sh [GROUP...]: install into .venv what the pipeline needs and, of pyproject.toml, these
# dependency groups, in the versions of requirements.lock. Groups that .venv has stay.
# PYTHON creates .venv; TORCH=cpu takes PyTorch's builds for CPUs. `make setup` calls this.
set -euo pipefail
cd "$(dirname "$0")/.."

UV=uv==0.13.9
python=${PYTHON:-python3}
ready=.venv/.ready # after a set-up: torch's build and the groups, as words

fail() {
  echo "error: $*" >&2
  exit 1
}

build="" groups=""
if [ -e "$ready" ]; then read -r build groups <"$ready" || true; fi
torch=${TORCH:-${build:-cuda}}
[[ $torch = cuda || $torch = cpu ]] || fail "TORCH is $torch; choose cuda or cpu"
[[ $torch = "${build:-$torch}" ]] || fail ".venv has torch for $build; run \`make clean\` first"

added=""
for group in "$@"; do
  [ "$group" != bench ] || fail "bench has an environment of its own: make bench-data"
  grep -q "^$group = \[" pyproject.toml || fail "GROUPS has $group, which pyproject.toml does not"
  [[ " $groups $added " = *" $group "* ]] || added+=" $group"
done
if [ -e "$ready" ] && [ -z "$added" ] && [ ! requirements.lock -nt "$ready" ]; then exit; fi
groups=$(echo $groups $added) # unquoted: one space between words

if [ ! -x .venv/bin/python ]; then
  tools/check-python.sh
  tools/debian.sh venv
  "$python" -m venv .venv
fi
if [[ " $groups " = *" verify "* ]] && ! .venv/bin/python -c 'import ffcv' 2>/dev/null; then
  tools/debian.sh ffcv
fi

# constraints, not requirements: a part of the lock is installed, with hashes checked all the same
lock=requirements.lock
options=()
for group in $groups; do options+=(--group "$group"); done
if [ "$torch" = cpu ]; then # the same versions, other files: without the hashes of PyPI's
  lock=$(mktemp)
  trap 'rm -f "$lock"' EXIT
  sed -E '/^torch(vision)?==/,/^ +# via/{/--hash/d; s/ \\$//}' requirements.lock >"$lock"
  options+=(--torch-backend cpu)
else # 0.3 GB that make the first imports fast; what is chosen to be small does without
  options+=(--compile-bytecode)
fi

.venv/bin/python -m pip install -q "$UV"
.venv/bin/uv pip install -q --python .venv/bin/python -c "$lock" -r pyproject.toml "${options[@]}" || {
  [ "$torch" != cpu ] || echo "error: TORCH=cpu needs PyTorch's own index; uv's message is above" >&2
  exit 1
}
echo "$torch $groups" >"$ready"
