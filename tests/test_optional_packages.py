"""Packages of dependency groups: loaded where they are used, named with their group if missing."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from minet.beton.verify import verify
from minet.core.errors import InputError, check_installed, needs_group
from minet.stats.significance import holm, mcnemar_p
from minet.train.loggers import DVCLiveLogger, TensorBoardLogger
from minet.zoo.ray_cluster import connected
from stages import report
from tests.helpers.tree import ROOT


def message(package: str, group: str) -> str:
    return (
        f"{package} is not installed; it is in the dependency group `{group}`: "
        f"`make setup GROUPS={group}`"
    )


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make imports of a package and of what is below it fail, loaded or not."""
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)


def check_betons(folder: Path) -> None:
    verify(folder / "train.beton", 1)


def connect(_: Path) -> None:
    with connected("auto"):
        pass


@pytest.mark.parametrize(
    ("package", "group", "use"),
    [
        ("ffcv", "verify", check_betons),
        ("tensorboard", "loggers", TensorBoardLogger),
        ("dvclive", "loggers", DVCLiveLogger),
        ("statsmodels", "zoo", lambda _: mcnemar_p(3, 4)),
        ("statsmodels", "zoo", lambda _: holm([0.1, 0.2])),
        ("altair", "zoo", lambda _: report.main()),
        ("jinja2", "zoo", lambda _: report.main()),
        ("vl_convert", "zoo", lambda _: report.main()),
        ("ray", "ray", connect),
    ],
)
def test_a_missing_package_is_named_with_its_group(
    package: str,
    group: str,
    use: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beton = SimpleNamespace(check_all=lambda _: None)  # a beton without a fault
    monkeypatch.setattr("minet.beton.verify.BetonReader", lambda _: beton)
    monkeypatch.setattr("sys.argv", ["report", "--comparison=a", "--runs=b", "--page=c"])
    for name in ("minet.zoo.report.page", "minet.zoo.report.charts", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    hide(package, monkeypatch)
    with pytest.raises(InputError) as caught:
        use(tmp_path)
    assert caught.value.problems == (message(package, group),)


def test_packages_are_looked_for_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    check_installed("zoo", "json", "this")
    assert "this" not in sys.modules
    hide("altair", monkeypatch)
    with pytest.raises(InputError) as caught:
        check_installed("zoo", "json", "altair")
    assert caught.value.problems == (message("altair", "zoo"),)


def test_what_is_installed_is_imported() -> None:
    with needs_group("zoo"):
        import json
    assert json.loads("1") == 1


def test_groups_that_messages_name_are_in_pyproject_toml() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    files = [path for folder in ("minet", "stages") for path in (ROOT / folder).rglob("*.py")]
    text = "".join(path.read_text() for path in files)
    named = set(re.findall(r"(?:needs_group|check_installed)\(\"(\w+)\"", text))
    assert {"zoo", "loggers", "verify", "ray"} <= named <= groups.keys()


def test_the_commands_start_without_optional_packages() -> None:
    packages = ("altair", "vl_convert", "jinja2", "statsmodels", "ffcv", "tensorboard", "dvclive",
                "ray")  # fmt: skip
    code = f"import sys, minet.__main__; sys.exit(repr(set({packages}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == "set()\n"
