"""`make wheel`: FFCV's wheel works without Debian's OpenCV and libjpeg-turbo."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
PACKAGED = re.compile(r"lib(opencv_\w+|turbojpeg)\.so.*")
# what Python and torch themselves need: parts of the C library and of the compiler, and zlib
EVERYWHERE = re.compile(r"(lib(c|m|dl|rt|pthread|z|stdc\+\+|gcc_s)|ld-linux[\w-]*)\.so\.\d+")
# hides the files before "--" from the command after it, as long as the mount namespace exists
HIDE = 'while [ "$1" != -- ]; do mount --bind /dev/null "$1"; shift; done; shift; exec "$@"'

PROBE = '''
"""Write a beton and read it back; argv: the environment and a folder."""

import ctypes
import sys
from pathlib import Path

import ffcv.libffcv
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.writer import DatasetWriter

IMAGE_SIZE = 32


def pictures():
    """Return smooth ramps, which JPEG hardly changes."""
    ramp = np.linspace(20, 200, IMAGE_SIZE)
    red = (ramp[:, None] + ramp[None, :]) / 2
    return [np.stack([red, red.T[::-1], red + step], -1).astype(np.uint8) for step in (0, 50)]


def write(path):
    fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=95), "label": IntField()}
    rows = list(zip(pictures(), (3, 8)))
    DatasetWriter(path, fields, num_workers=1).from_indexed_dataset(rows, shuffle_indices=False)


def read(path):
    pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
    loader = Loader(path, batch_size=2, num_workers=1, order=OrderOption.SEQUENTIAL,
                    drop_last=False, pipelines=pipelines)
    (images, labels), = loader
    return images, labels


def main():
    environment, folder = sys.argv[1:]
    assert Path(ffcv.__file__).is_relative_to(environment), ffcv.__file__
    try:
        ctypes.CDLL("libturbojpeg.so.0")
    except OSError:
        pass
    else:
        raise AssertionError("libturbojpeg of this machine is not hidden")
    path = str(Path(folder, "two.beton"))
    write(path)
    images, labels = read(path)
    assert labels.ravel().tolist() == [3, 8], labels
    difference = np.abs(images.astype(int) - np.stack(pictures())).max()
    assert difference <= 8, f"pixels differ by up to {difference}"
    small = np.empty((IMAGE_SIZE // 2, IMAGE_SIZE // 2, 3), np.uint8)
    ffcv.libffcv.resize_crop(pictures()[0], 0, IMAGE_SIZE, 0, IMAGE_SIZE, small)  # calls OpenCV
    blocks = pictures()[0].reshape(IMAGE_SIZE // 2, 2, IMAGE_SIZE // 2, 2, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1


if __name__ == "__main__":
    main()
    print("read back")
'''


def make_wheel(root: Path, python: Path, folder: Path, **env: str) -> CompletedProcess[str]:
    """Run `make wheel` without the flags of an outer make, as `make test-slow` is."""
    make = shutil.which("make")
    assert make
    command = [make, "wheel", f"PYTHON={python}", f"DIST={folder}"]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=root, env=outer | env, check=False, text=True, capture_output=True, timeout=600
    )


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel for the running Python into a new folder, which then has nothing else."""
    folder = tmp_path_factory.mktemp("wheel") / "dist"
    done = make_wheel(root, Path(sys.executable), folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    assert f"{built}: " in done.stdout
    return built


@pytest.mark.slow
def test_wheel_is_small_and_named_for_the_locked_version(root: Path, wheel: Path) -> None:
    locked = re.search(r"^ffcv==([\d.]+)", (root / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"ffcv-{locked[1]}-{tag}-{tag}-manylinux_\w+\.whl", wheel.name)
    assert wheel.stat().st_size < 20e6


def needed(library: Path) -> set[str]:
    """Return the names of the libraries that a library loads."""
    done = subprocess.run(["readelf", "-d", library], check=True, text=True, capture_output=True)
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", done.stdout))


@pytest.mark.slow
def test_wheel_needs_only_libraries_that_every_machine_has(wheel: Path, tmp_path: Path) -> None:
    """It needs no OpenCV, no libjpeg-turbo, and nothing that they need, such as X11."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (extension,) = tmp_path.glob("ffcv/_libffcv*.so")
    inside = {path.name: path for path in (tmp_path / "ffcv.libs").iterdir()}
    bundled = [name for name in needed(extension) if re.match(r"lib(opencv|turbojpeg)", name)]
    assert len(bundled) == 3  # OpenCV's core and imgproc, libturbojpeg
    loaded = set().union(*(needed(library) for library in (extension, *inside.values())))
    assert {name for name in loaded - set(inside) if not EVERYWHERE.fullmatch(name)} == set()


def private_mounts() -> list[str]:
    """Return a command prefix that gives private mounts; skip the test if they are not allowed."""
    prefix = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    trial = [*prefix, "sh", "-ec", HIDE, "sh", __file__, "--", "true"]
    done = subprocess.run(trial, check=False, text=True, capture_output=True)
    if done.returncode:
        pytest.skip(f"libraries cannot be hidden without private mounts: {done.stderr.strip()}")
    return prefix


def packaged_libraries() -> list[str]:
    """Return the files of Debian's OpenCV and libjpeg-turbo, links resolved."""
    folders = {Path(folder).resolve() for folder in LIBRARY_FOLDERS}  # /lib is often /usr/lib
    paths = (path for folder in folders for path in folder.rglob("lib*.so*"))
    return sorted({str(path.resolve()) for path in paths if PACKAGED.fullmatch(path.name)})


def install(wheel: Path, folder: Path) -> Path:
    """Create an environment with the wheel; FFCV's imports come from the running environment."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-index"]
    subprocess.run([python, "-m", "pip", "install", *options, wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    running = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "running.pth").write_text("".join(f"{path}\n" for path in running))
    return python


@pytest.mark.slow
def test_wheel_works_without_the_debian_packages(wheel: Path, tmp_path: Path) -> None:
    prefix = private_mounts()
    environment = tmp_path / "environment"
    python = install(wheel, environment)
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    hidden = packaged_libraries()
    assert hidden, "the wheel was built, so this machine must have OpenCV"
    command = [
        *prefix,
        "sh",
        "-ec",
        HIDE,
        "sh",
        *hidden,
        "--",
        python,
        probe,
        environment,
        tmp_path,
    ]
    done = subprocess.run(command, check=False, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("read back\n")


def executable(path: Path, text: str) -> Path:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["3.10.9", "3.14.0"])
def test_a_python_out_of_range_is_a_one_line_error(
    root: Path, tmp_path: Path, version: str
) -> None:
    """The stub runs this Python under another version number."""
    numbers = tuple(map(int, version.split(".")))
    disguise = f"import sys; sys.version_info = {numbers}; exec(sys.argv[2])"
    script = f'#!/bin/sh\n[ "$1" != --version ] || exec echo "Python {version}"\n'
    script += f'exec "{sys.executable}" -c "{disguise}" "$@"\n'
    done = make_wheel(root, executable(tmp_path / "python", script), tmp_path / "dist")
    assert done.returncode
    message = f"error: Python {version}; minet needs Python 3.11 to 3.13"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert lines[0].startswith(message)
    assert not (tmp_path / "dist").exists()


def test_without_apt_the_error_names_the_packages(root: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    executable(tools / "id", "#!/bin/sh\necho 0\n")
    done = make_wheel(root, Path(sys.executable), tmp_path / "dist", PATH=str(tools))
    assert done.returncode
    assert "error: FFCV needs these Debian packages: build-essential " in done.stderr
    assert "installing" not in done.stdout
    assert not (tmp_path / "dist").exists()
