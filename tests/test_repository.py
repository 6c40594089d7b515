"""Rules of the tree itself: layers, dependencies of stages, settings, README."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

from minet.models.registry import MODELS
from minet.params import check_params, read_yaml
from tests.helpers.tree import ROOT, closure, imports

STAGES = ("sample", "resolve", "index", "beton", "weights", "train", "evaluate", "cost", "plots")


def sources(*folders: str) -> list[Path]:
    """Python files below folders of the tree."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found)


def is_docstring_only(file: Path) -> bool:
    """Whether a file holds nothing that runs."""
    return file.name == "__init__.py"


def test_no_import_cycle() -> None:
    for file in sources("minet", "stages"):
        beyond = set().union(*(closure(target) for target in imports(file) - {file}))
        assert file not in beyond or is_docstring_only(file), f"{file} imports itself"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("ffcv", {"minet/beton/verify.py"}),
        ("matplotlib", {"minet/figures.py"}),
        ("yaml", {"minet/params.py"}),
    ],
)
def test_a_library_is_known_in_one_place(library: str, allowed: set[str]) -> None:
    pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
    users = {str(file) for file in sources("minet", "stages") if pattern.search(read(file))}
    assert users == allowed


def test_stages_of_words_do_not_wait_for_torch() -> None:
    """`inputs` runs once a row: a second each would be most of what a second `make zoo` takes."""
    names = ("inputs", "code", "compare", "report", "index", "sample", "weights", "plots")
    loaded = f"import sys, {', '.join(f'stages.{name}' for name in names)}"
    code = f"{loaded}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_init_files_hold_a_docstring_only() -> None:
    for file in sources("minet", "stages"):
        if is_docstring_only(file):
            assert re.fullmatch(r'"""[^"]*"""\n', read(file)), file


def read(file: Path) -> str:
    """Text of a file of the tree."""
    return (ROOT / file).read_text()


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    """Give dvc.yaml as plain data."""
    return yaml.safe_load(read(Path("dvc.yaml")))["stages"]


def code_deps(stage: dict[str, Any], model: str) -> set[Path]:
    """Files and folders of code that a stage names as dependencies, for one model."""
    paths = (Path(dep.replace("${model}", model)) for dep in stage["deps"])
    return {path for path in paths if path.parts[0] in ("minet", "stages")}


def loaded(stage: str, model: str) -> set[Path]:
    """Files of code that a stage loads, docstrings left out.

    A run imports the file of its builder alone, which its settings name; `resolve` and the zoo's
    `rows` try every model.
    """
    models = {"train": [model], "evaluate": [model], "cost": [model], "resolve": MODELS}
    files = closure(Path("stages", f"{stage}.py"))
    for name in (models | {"rows": MODELS}).get(stage, []):
        files |= closure(Path("minet/models", f"{name}.py"))
    return {file for file in files if not is_docstring_only(file)}


def covers(dep: Path, file: Path) -> bool:
    """Whether a dependency is a file, or a folder that holds it."""
    return dep == file or dep in file.parents


def check_code_deps(name: str, stage: dict[str, Any]) -> None:
    """Assert that a stage depends on all code that it loads, and names nothing else."""
    for model in MODELS:
        deps, files = code_deps(stage, model), loaded(name, model)
        missing = {file for file in files if not any(covers(dep, file) for dep in deps)}
        assert not missing, f"{name} with {model} loads what its dependencies do not cover"
    used = set().union(*(loaded(name, model) for model in MODELS))
    named = set().union(*(code_deps(stage, model) for model in MODELS))
    idle = {dep for dep in named if not any(covers(dep, file) for file in used)}
    assert not idle, f"{name} depends on what no model's run loads"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_loads_and_on_no_other(pipeline, stage: str) -> None:
    check_code_deps(stage, pipeline[stage])


# what each stage need not depend on: an edit there must not run it again
@pytest.mark.parametrize("stage", ["sample", "index", "beton", "weights", "train", "evaluate"])
def test_an_expensive_stage_does_not_depend_on_the_zoo_or_on_other_models(
    pipeline, stage: str
) -> None:
    deps = code_deps(pipeline[stage], "cnn3")
    rooms = ("minet/zoo/run.py", "minet/stats/comparison.py", "minet/models/rrdb.py")
    for room in (*rooms, "minet/models/registry.py", "minet/params.py", "minet/dry_run.py"):
        assert not any(covers(dep, Path(room)) for dep in deps), room


@pytest.fixture(scope="module")
def zoo_pipeline() -> dict[str, Any]:
    """Give zoo/dvc.yaml as plain data, a stage of each kind."""
    stages = yaml.safe_load(read(Path("zoo/dvc.yaml")))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


# the code of train, evaluate and cost is in zoo/code, model by model; `code` reads all of it
@pytest.mark.parametrize(
    "stage", ["rows", "sample", "index", "beton", "weights", "compare", "report"]
)
def test_a_stage_of_the_zoo_depends_on_the_code_it_loads(zoo_pipeline, stage: str) -> None:
    check_code_deps(stage, zoo_pipeline[stage])


def test_settings_of_the_zoo_keep_their_comments_when_one_is_changed(tmp_path: Path) -> None:
    """`dvc exp run -S zoo/params.yaml:budget=published` writes the file anew."""
    path = tmp_path / "params.yaml"
    path.write_text(read(Path("zoo/params.yaml")), encoding="utf-8")
    apply_overrides(path, ["budget=published"])
    before, after = read(Path("zoo/params.yaml")).split("\n"), path.read_text().split("\n")
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [("budget: smoke", "budget: published")]


def test_stages_are_those_of_dvc_yaml(pipeline) -> None:
    assert set(pipeline) == set(STAGES)
    for name, stage in pipeline.items():
        assert stage["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]


def test_only_resolve_reads_params_yaml(pipeline) -> None:
    """Each other stage depends on its resolved settings alone."""
    readers = {name for name, stage in pipeline.items() if "params" in stage}
    assert readers == {"resolve"}
    for name, stage in pipeline.items():
        settings = [dep for dep in stage["deps"] if dep.startswith("data/settings/")]
        expected = [] if name in ("resolve", "plots") else [f"data/settings/{name}.json"]
        assert settings == expected, name


def test_paths_in_a_command_are_its_dependencies_and_outputs() -> None:
    """DVC's own view, templates filled in: nothing is read or written behind its back."""
    with Repo(ROOT) as repo:
        for stage in repo.index.stages:
            known = {str(out) for out in (*stage.deps, *stage.outs)}
            given = {word for word in stage.cmd.split() if "/" in word or "." in word}
            files = {word for word in given if not word.startswith("stages.")}
            # the zoo's paths are from the root too; sources hold what a file of arguments names
            known = {str(Path(path)) for path in known}
            files = {file.removeprefix("@") for file in files}
            for file in files - known:
                inside = [path for path in known if path.startswith(f"{file}/")]
                # resolve is told where the sample and the weights will be; they make no byte of it
                places = ("params.yaml", "zoo/params.yaml", "data/sample", "data/weights")
                told = stage.name in ("resolve", "rows") and file in places
                # a beton is known by its sidecar
                told |= stage.name.startswith("inputs@") and file == "data"
                assert inside or told, f"{stage.addressing}: {file}"


def test_set_parameter_changes_one_line_of_params_yaml(tmp_path: Path) -> None:
    """params.yaml is in the style that `-S` writes; otherwise the first -S makes a noisy diff."""
    before = read(Path("params.yaml"))
    path = tmp_path / "params.yaml"
    path.write_text(before)
    apply_overrides(path, ["model=rrdb", "train.lr=0.00001"])
    after = path.read_text()
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    changed = [new for old, new in pairs if old != new]  # strict: no comment is lost either
    assert changed == ["model: rrdb", "  lr: 1e-05"]
    params, problems = check_params(read_yaml(path), MODELS)
    assert params is not None, problems
    assert params.train.lr == 1e-5


def test_readme_paths_and_commands_exist(pipeline) -> None:
    text = read(Path("README.md"))
    assert len(text.splitlines()) < 165
    makefile = read(Path("Makefile"))
    for target in re.findall(r"\bmake ([a-z][a-z-]*)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    outs = [out for stage in pipeline.values() for out in stage.get("outs", [])]
    made = {out for out in outs if isinstance(out, str)}
    for path in re.findall(r"`((?:minet|stages|tests|metrics|plots)/[\w./]+)`", text):
        known = (ROOT / path).exists() or path in made or path == "minet/models/mynet.py"
        assert known, path
    for name in re.findall(r"-S '?model=([\w,]+)", text):
        assert set(name.split(",")) <= {*MODELS, "mynet", "rrbd"}, name


def test_dvc_sees_what_a_user_adds_under_data() -> None:
    """Were all of data/ ignored, DVC would not see data/mine.dvc and remove data/mine."""
    with Repo(ROOT) as repo:
        assert not repo.scm.is_ignored("data/")
        assert not repo.scm.is_ignored("data/mine.dvc")
        assert all(repo.scm.is_ignored(f"data/{name}") for name in ("beton", "index", "sample"))
