"""Set-up: dependency groups, their lock, tools/setup.sh, and the files of other tools."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.helpers.tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
UNLOCKED = ("ray", "bench")
LOCKED = sorted(GROUPS.keys() - set(UNLOCKED))


def read(path: str) -> str:
    return (ROOT / path).read_text()


# --- pyproject.toml and requirements.lock


def test_every_dependency_has_a_reason() -> None:
    text = read("pyproject.toml").partition("[tool.uv]")[0]
    lines = re.findall(r'^  "[^"]+",(.*)$', text, re.MULTILINE)
    declared = [*PROJECT["project"]["dependencies"], *(name for g in GROUPS.values() for name in g)]
    assert len(lines) == len(declared)
    assert all(re.fullmatch(r"\s+# \w.{3,}", reason) for reason in lines), lines


def test_no_dependency_is_declared_twice() -> None:
    lists = (PROJECT["project"]["dependencies"], *GROUPS.values())
    names = [canonicalize_name(Requirement(line).name) for lines in lists for line in lines]
    assert len(names) == len(set(names))


def needs(line: str, extras: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the package of a requirement with its extras, if its marker holds here."""
    wanted = Requirement(line)
    markers = [{"extra": extra} for extra in (*extras, "")]
    if wanted.marker is None or any(wanted.marker.evaluate(marker) for marker in markers):
        yield canonicalize_name(wanted.name), frozenset(wanted.extras)


@pytest.mark.parametrize("group", ["", *LOCKED])
def test_the_lock_has_all_that_a_group_needs(group: str) -> None:
    """So `uv pip install -c requirements.lock` takes nothing that has no version and no hash."""
    locked = set(re.findall(r"^([a-z0-9-]+)==", read("requirements.lock"), re.MULTILINE))
    lines = GROUPS[group] if group else PROJECT["project"]["dependencies"]
    waiting = [need for line in lines for need in needs(line)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        package = waiting.pop()
        if package in seen or package[0] == "opencv-python":  # overridden by its headless twin
            continue
        seen.add(package)
        assert package[0] in locked, package
        try:
            lines = requires(package[0]) or []
        except PackageNotFoundError:  # for another machine or Python; uv has resolved it
            continue
        waiting += [need for line in lines for need in needs(line, package[1])]


def test_the_lock_has_hashes_and_names_no_index() -> None:
    text = read("requirements.lock")
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "index-url" not in text


# --- tools/setup.sh in a copy of the tree in which nothing is installed

STUB = """#!/bin/bash
words="$*"
echo "$(basename "$0") $words" >>"$LOG"
while [ $# -gt 0 ]; do [[ $1 != -c || ! -f $2 ]] || cp "$2" "$LOG.constraints"; shift; done
"""


class SetUp:
    """tools/setup.sh with stubs for Python, uv and Debian's packages, which log their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / "tools").mkdir()
        for name in ("pyproject.toml", "requirements.lock", "tools/setup.sh"):
            shutil.copy(ROOT / name, folder / name)
        for name in (".venv/bin/python", ".venv/bin/uv", "tools/debian.sh"):
            stub = folder / name
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text(STUB)
            stub.chmod(0o755)

    def run(self, *groups: str, **environment: str) -> CompletedProcess[str]:
        self.log.write_text("")
        outer = {name: value for name, value in os.environ.items() if name != "TORCH"}
        return subprocess.run(
            [self.folder / "tools/setup.sh", *groups], check=False, text=True, capture_output=True,
            env=outer | {"LOG": str(self.log)} | environment,
        )  # fmt: skip

    def installs(self, *groups: str, **environment: str) -> list[str]:
        """Set up and return the arguments of uv, none if it is not called."""
        done = self.run(*groups, **environment)
        assert done.returncode == 0, done.stderr
        calls = [line.split() for line in self.log.read_text().splitlines()]
        found = [call[1:] for call in calls if call[0] == "uv"]
        return found[0] if found else []


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


def named_groups(arguments: list[str]) -> list[str]:
    return [value for flag, value in pairwise(arguments) if flag == "--group"]


def test_set_up_installs_groups_in_locked_versions_with_hashes(set_up: SetUp) -> None:
    arguments = set_up.installs("zoo", "loggers")
    assert named_groups(arguments) == ["zoo", "loggers"]
    assert arguments[:2] == ["pip", "install"]
    assert arguments[arguments.index("-r") + 1] == "pyproject.toml"
    assert arguments[arguments.index("-c") + 1] == "requirements.lock"
    assert "--torch-backend" not in arguments


def test_set_up_adds_groups_and_does_nothing_twice(set_up: SetUp) -> None:
    assert set_up.installs()
    assert set_up.installs() == []
    assert named_groups(set_up.installs("zoo")) == ["zoo"]
    assert set_up.installs("zoo") == []
    assert set_up.installs() == []
    assert named_groups(set_up.installs("zoo", "dev")) == ["zoo", "dev"]


def test_a_changed_lock_is_installed_with_the_groups_that_are_there(set_up: SetUp) -> None:
    set_up.installs("loggers", TORCH="cpu")
    (set_up.folder / "requirements.lock").touch()
    os.utime(set_up.folder / ".venv/.ready", (1, 1))
    arguments = set_up.installs()
    assert named_groups(arguments) == ["loggers"]
    assert "--torch-backend" in arguments


def test_only_verify_needs_debian_packages(set_up: SetUp) -> None:
    python = set_up.folder / ".venv/bin/python"  # without FFCV
    python.write_text(f'{STUB}[ "$words" != "-c import ffcv" ]\n')
    for group in GROUPS.keys() - {"verify", "bench"}:
        set_up.installs(group)
        assert "debian.sh" not in set_up.log.read_text(), group
    set_up.installs("verify")
    assert "debian.sh ffcv\n" in set_up.log.read_text()


def test_an_installed_ffcv_is_left_as_it_is(set_up: SetUp) -> None:
    set_up.installs("verify")
    assert "debian.sh" not in set_up.log.read_text()


def test_torch_for_cpus_comes_from_its_index_in_the_locked_version(set_up: SetUp) -> None:
    arguments = set_up.installs(TORCH="cpu")
    assert arguments[arguments.index("--torch-backend") + 1] == "cpu"
    constraints = Path(f"{set_up.log}.constraints").read_text()
    locked = read("requirements.lock")
    names = r"^([a-z0-9-]+==\S+)"
    versions = re.findall(names, locked, re.MULTILINE)
    assert re.findall(names, constraints, re.MULTILINE) == versions
    entries = re.split(r"^(?=[a-z0-9-]+==)", constraints, flags=re.MULTILINE)[1:]
    bare = {entry.partition("==")[0] for entry in entries if "--hash" not in entry}
    assert bare == {"torch", "torchvision"}
    assert not re.search(r"\\\n +#", constraints)  # no line is continued into a comment


def test_the_choice_of_torch_stays(set_up: SetUp) -> None:
    set_up.installs(TORCH="cpu")
    assert "--torch-backend" in set_up.installs("dev")
    done = set_up.run(TORCH="cuda")
    assert done.returncode == 1
    assert done.stderr == "error: .venv has torch for cpu; run `make clean` first\n"


@pytest.mark.parametrize(
    ("groups", "environment", "message"),
    [
        (["zoo", "zzo"], {}, "GROUPS has zzo, which pyproject.toml does not"),
        (["bench"], {}, "bench has an environment of its own: make bench-data"),
        ([], {"TORCH": "gpu"}, "TORCH is gpu; choose cuda or cpu"),
    ],
)
def test_a_mistake_is_one_line(
    set_up: SetUp, groups: list[str], environment: dict[str, str], message: str
) -> None:
    done = set_up.run(*groups, **environment)
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert not set_up.log.read_text()


def test_an_index_out_of_reach_is_named_and_the_set_up_is_not_done(set_up: SetUp) -> None:
    (set_up.folder / ".venv/bin/uv").write_text('#!/bin/bash\necho "Failed to fetch" >&2\nexit 2\n')
    done = set_up.run(TORCH="cpu")
    assert done.returncode == 1
    assert "Failed to fetch\nerror: TORCH=cpu needs PyTorch's own index" in done.stderr
    assert not (set_up.folder / ".venv/.ready").exists()
    assert "PyTorch" not in set_up.run().stderr


# --- make, pip, and the files that other tools read


def make(*arguments: str) -> str:
    """Return what make would run."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    for name in ("TORCH", "GROUPS"):
        outer.pop(name, None)
    command = ["make", "--no-print-directory", "-n", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=outer, check=True, text=True, capture_output=True)
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "groups"),
    [
        ((), {"zoo", "reports", "loggers", "verify", "dev"}),
        (("GROUPS=zoo verify",), {"zoo", "verify"}),
        (("GROUPS=",), set()),
        (("TORCH=cpu",), set()),
        (("TORCH=cpu", "GROUPS=zoo"), {"zoo"}),
    ],
)
def test_make_setup_passes_groups(arguments: tuple[str, ...], groups: set[str]) -> None:
    (line,) = make("setup", *arguments).splitlines()
    script, *passed = line.split()
    assert script == "tools/setup.sh"
    assert set(passed) == groups


@pytest.mark.parametrize(
    ("target", "groups"),
    [
        ("test", set(LOCKED)),
        ("lint", set(LOCKED)),
        ("test-slow", {*LOCKED, "ray"}),
        ("zoo", {"zoo"}),
    ],
)
def test_a_target_sets_up_the_groups_that_it_needs(target: str, groups: set[str]) -> None:
    calls = re.findall(r"^tools/setup\.sh(.*)$", make(target), re.MULTILINE)
    assert groups <= {group for call in calls for group in call.split()}


def test_make_help_lists_every_target() -> None:
    text = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE)) - {"all-groups"}
    command = ["make", "--no-print-directory", "help"]  # pytest may run below a make itself
    listed = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True)
    assert {line.split()[0] for line in listed.stdout.splitlines()} == targets


def test_the_table_of_groups_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", read("docs/install.md"), re.MULTILINE)
    assert rows == list(GROUPS)


def test_pip_install_ends_with_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "tools/no_package.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "."]
    done = subprocess.run(command, cwd=tmp_path, check=False, text=True, capture_output=True)
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert "error: minet is no package; run it from its tree: `make setup`" in output
    assert "Traceback" not in output


def test_the_workflow_runs_ci_with_every_python() -> None:
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    versions = job["strategy"]["matrix"]["python-version"]
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert versions == [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}" in allowed]
    assert job["runs-on"] == "ubuntu-latest"
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert read(".ci/run").splitlines()[-1] == "make test"


def test_hooks_are_the_commands_of_make_lint_from_the_virtual_environment() -> None:
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    recipe = make("lint").splitlines()[-1].split(" && ")
    commands = [f".venv/bin/{command}" for command in recipe]
    entries = [hook["entry"] for hook in repo["hooks"]]
    # a hook formats, `make lint` checks; hooks get the files that are committed
    assert entries == [re.sub(r"( --check)?( \.)?$", "", command) for command in commands]
