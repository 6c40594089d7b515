"""The documentation: its paths, commands, rooms and figures are those of the tree."""

import os
import re
import tomllib
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from minet.core.files import read_json
from minet.models.registry import MODELS
from minet.params import read_yaml
from tests.helpers.tree import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(f"docs/{path.name}" for path in
         (ROOT / "docs").glob("*.md")))  # fmt: skip
FOLDERS = "minet|stages|tests|benchmarks|docs|zoo|tools|metrics|plots|data|runs|checkpoints"
# names of examples: a reader's own model, row or images
EXAMPLE = re.compile(r"\b(mynet|mine)\b")


def read(page: str) -> str:
    return (ROOT / page).read_text()


def outputs() -> set[str]:
    """Return the files and folders that runs write: outputs of both pipelines, others by name."""
    ignored = re.findall(r"^/([\w/.-]+)$", read(".gitignore"), re.MULTILINE)
    written = {path.rstrip("/") for path in ignored}
    for name in ("dvc.yaml", "zoo/dvc.yaml"):
        for entry in yaml.safe_load(read(name))["stages"].values():
            stage = entry.get("do", entry)
            folder = stage.get("wdir", "").removeprefix("..")
            for out in (*stage.get("outs", ()), *stage.get("metrics", ())):
                path = out if isinstance(out, str) else next(iter(out))
                written.add(os.path.normpath(Path(folder, path)))
    return written


def pattern(path: str) -> str:
    """Return a glob pattern for a path with `<name>`, `{a,b}` or DVC's `${name}`."""
    return re.sub(r"<[^>]+>|\$?\{[^}]+\}", "*", path).rstrip("/")


def exists(path: str) -> bool:
    """Return whether a path with placeholders is in the tree or is written by a run."""
    wanted = pattern(path)
    if EXAMPLE.search(path) or any(ROOT.glob(wanted)):
        return True
    written = [pattern(out) for out in outputs()]
    return any(
        fnmatch(wanted, out)
        or fnmatch(out, wanted)
        or out.startswith(f"{wanted}/")
        or fnmatch(wanted, f"{out}/*")  # in a folder that a stage writes
        for out in written
    )


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_a_page_exist(page: str) -> None:
    name = r"(?:[\w./*$-]|<[^>]+>|\{[^}]+\})"
    paths = re.findall(rf"(?<![\w./-])(?:{FOLDERS})/{name}*(?<![.])", read(page))
    assert [path for path in paths if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", read(page)):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_exist(page: str) -> None:
    text = read(page)
    makefile = read("Makefile")
    for target in re.findall(r"(?:`|^ {4}|&& )make ([a-z][a-z-]*)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert find_spec(module), f"python -m {module}"
    for name in re.findall(r"-S '?model=([\w,]+)", text):
        assert set(name.split(",")) <= {*MODELS, "mynet", "rrbd"}, name


def has_key(settings: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(settings, dict) or name not in settings:
            return False
        settings = settings[name]
    return True


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_a_page_changes_exist(page: str) -> None:
    settings = read_yaml(ROOT / "params.yaml")
    for key in re.findall(r"-S '?([\w.]+)=", read(page)):
        assert has_key(settings, key) or "mynet" in key, key


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) < 130


def test_readme_names_the_rooms_of_minet() -> None:
    tree = read("README.md").partition("## The tree")[2]
    rooms = re.findall(r"\bminet/(\w+)", tree)
    folders = {path.parent.name for path in (ROOT / "minet").glob("*/__init__.py")}
    assert sorted(rooms) == sorted(folders)


def test_readme_shows_the_metrics_that_are_committed() -> None:
    test = read_json(ROOT / "metrics/test.json")
    low, high = test["accuracy_low"], test["accuracy_high"]
    line = f"test accuracy {test['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})"
    assert line in read("README.md")


def test_readme_prints_the_accuracies_that_the_zoo_has_as_published() -> None:
    """Rounded to four digits, as zoo/table.md shows them."""
    reports = read("README.md").partition("## The reports")[2].partition("## The tree")[0]
    rows = yaml.safe_load(read("zoo/params.yaml"))["rows"].values()
    published: dict[str, set[float]] = {}
    for row in rows:
        figures = row.get("published", {})
        for key in ("accuracy", "val_accuracy", "kaggle"):
            if key in figures:
                published.setdefault(row["report"], set()).add(round(figures[key], 4))
    ours = sum(row["report"] == "ours" for row in rows)
    assert f"{len(rows) - ours} experiments and {ours} of ours" in reports
    lines = re.findall(r"^\| (\d{3}) \|(.*)$", reports, re.MULTILINE)
    assert {report for report, _ in lines} == published.keys() - {"ours"}
    for report, line in lines:
        assert {float(figure) for figure in re.findall(r"0\.\d+", line)} <= published[report], line
        assert set(re.findall(r"`(\w+)`", line)) <= MODELS.keys()


def test_design_prints_the_speeds_that_were_measured() -> None:
    figures = re.compile(r"\d+,\d{3}|\d\.\d{2,3}")
    measured = set(figures.findall(read("docs/performance.md")))
    assert set(figures.findall(read("docs/design.md"))) <= measured


def test_design_explains_every_stage() -> None:
    stages = yaml.safe_load(read("dvc.yaml"))["stages"]
    names = re.findall(r"^\| `(\w+)` \|", read("docs/design.md"), re.MULTILINE)
    assert names == list(dict.fromkeys(stage.removesuffix("_also") for stage in stages))
    assert len(names) == 12


def test_citation_has_version_title_and_license_of_the_project() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    citation = yaml.safe_load(read("CITATION.cff"))
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert (citation["type"], citation["license"]) == ("software", "MIT")
    assert citation["authors"] == [{"name": "minet contributors"}]
    assert read("LICENSE").startswith("MIT License\n")
    assert "minet contributors" in read("LICENSE")


def test_every_document_is_linked_from_the_readme_or_from_a_linked_one() -> None:
    seen, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        text = read(page)
        waiting += [other for other in PAGES if other in text and other not in {*seen, *waiting}]
    assert seen == set(PAGES)


def test_the_picture_of_the_readme_is_a_png() -> None:
    assert Path(ROOT, "docs/channels.png").read_bytes().startswith(b"\x89PNG")
