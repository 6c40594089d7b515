#!/bin/bash
# tools/debian.sh NAME: install Debian's packages for one purpose, if they are missing.
# Root is taken by sudo; without apt-get the packages are named and the exit code is 1.
set -euo pipefail

python=${PYTHON:-python3}

case ${1:-} in
  venv)
    for_what="a virtual environment"
    packages=(python3-venv)
    is_there() { "$python" -c 'import ensurepip' 2>/dev/null; }
    ;;
  ffcv) # its setup.py compiles
    for_what="FFCV"
    packages=(build-essential pkg-config libopencv-dev libturbojpeg0-dev python3-dev python3-venv)
    is_there() {
      command -v c++ >/dev/null && pkg-config --exists opencv4 libturbojpeg 2>/dev/null &&
        "$python" -c 'import ensurepip, pathlib, sysconfig
header = pathlib.Path(sysconfig.get_paths()["include"], "Python.h")
raise SystemExit(not header.exists())' 2>/dev/null
    }
    ;;
  browser)
    for_what="the tests of pages"
    packages=(chromium chromium-driver)
    is_there() { command -v chromedriver >/dev/null; }
    ;;
  ffmpeg)
    for_what="SPDL, a peer of the benchmarks,"
    packages=(ffmpeg)
    is_there() { command -v ffmpeg >/dev/null; }
    ;;
  *)
    echo "error: tools/debian.sh ${1:-}: choose from venv, ffcv, browser, ffmpeg" >&2
    exit 1
    ;;
esac

is_there && exit
command -v apt-get >/dev/null || {
  echo "error: $for_what needs these Debian packages: ${packages[*]}" >&2
  exit 1
}
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
echo "installing Debian packages for $for_what: ${packages[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${packages[@]}"
