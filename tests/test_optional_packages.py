"""Packages of dependency groups: loaded where they are used, named with their group if missing."""

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minet import __main__ as commands
from minet.beton.verify import verify
from minet.core.errors import InputError, check_installed, needs_group
from minet.core.settings import parse
from minet.dry_run import run_problems
from minet.params import Params
from minet.stats.significance import holm, mcnemar_p
from minet.train.loggers import DVCLiveLogger, TensorBoardLogger
from minet.zoo.ray_cluster import connected
from stages import report, rows
from stages.resolve import stage_settings
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


def test_a_missing_package_is_reported_before_a_beton_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("ffcv", monkeypatch)
    monkeypatch.setattr("sys.argv", ["minet", "verify", str(tmp_path / "missing.beton")])
    with pytest.raises(InputError) as caught:
        commands.main()
    assert caught.value.problems == (message("ffcv", "verify"),)


@pytest.mark.parametrize("package", ["tensorboard", "dvclive"])
def test_a_missing_logger_is_reported_before_training(
    raw_params: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC deletes the outputs of `train` before it runs: `resolve` must find it."""
    raw_params["model"] = "cnn3"
    raw_params["train"][package] = True
    stages = stage_settings(parse(Params, raw_params))
    assert run_problems(stages.train, stages.evaluate, stages.cost) == []
    hide(package, monkeypatch)
    (problem,) = run_problems(stages.train, stages.evaluate, stages.cost)
    assert problem == f"train.{package} is true; {message(package, 'loggers')}"


def test_rows_of_the_zoo_are_refused_before_they_train(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("jinja2", monkeypatch)
    paths = [f"--params={root / 'params.yaml'}", f"--zoo={root / 'zoo/params.yaml'}"]
    monkeypatch.setattr("sys.argv", ["rows", *paths, f"--out={tmp_path / 'settings'}"])
    with pytest.raises(InputError) as caught:
        rows.main()
    assert caught.value.problems == (message("jinja2", "zoo"),)
    assert list(tmp_path.iterdir()) == []


def test_a_module_of_ours_that_is_missing_is_no_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match="minet.zoo.typo"), needs_group("zoo"):
        importlib.import_module("minet.zoo.typo")


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
