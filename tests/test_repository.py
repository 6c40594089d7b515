"""Rules of the tree itself: imports, dependencies of stages, settings files."""

import os
import re
import shutil
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

# of the chosen model; those of a model that is trained beside it are these with `_also`
OF_A_MODEL = ("weights", "train", "evaluate", "cost")
STAGES = ("resolve", "sample", "index", "beton", *OF_A_MODEL, "plots", "publish")
ONLY_ALSO = ("settings", "score")


def sources(*folders: str) -> list[Path]:
    """Return the Python files below folders of the tree."""
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in files)


def is_docstring_only(file: Path) -> bool:
    """Return whether a file contains no code."""
    return file.name == "__init__.py"


def test_no_import_cycle() -> None:
    for file in sources("minet", "stages"):
        loaded = set().union(*(closure(target) for target in imports(file) - {file}))
        assert file not in loaded or is_docstring_only(file), f"{file} imports itself"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("ffcv", {"minet/beton/verify.py"}),
        ("matplotlib", {"minet/figures.py"}),
        ("yaml", {"minet/params.py"}),
    ],
)
def test_a_library_is_imported_by_one_file(library: str, allowed: set[str]) -> None:
    pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
    users = {str(file) for file in sources("minet", "stages") if pattern.search(read(file))}
    assert users == allowed


def test_stages_without_tensors_do_not_import_torch() -> None:
    """`inputs` runs once for each row: a second each would dominate a repeated `make zoo`."""
    names = ("inputs", "code", "compare", "report", "index", "sample", "weights", "plots")
    names += ("settings", "score", "publish")
    imports = f"import sys, {', '.join(f'stages.{name}' for name in names)}"
    code = f"{imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_init_files_contain_only_a_docstring() -> None:
    for file in sources("minet", "stages"):
        if is_docstring_only(file):
            assert re.fullmatch(r'"""[^"]*"""\n', read(file)), file


def read(file: Path) -> str:
    """Return the text of a file of the tree."""
    return (ROOT / file).read_text()


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    """Return the stages of dvc.yaml as plain data, one of each kind."""
    stages = yaml.safe_load(read(Path("dvc.yaml")))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def params(stage: dict[str, Any]) -> list[str]:
    """Return the files of settings that a stage depends on."""
    return [next(iter(file)) for file in stage.get("params", ())]


def code_deps(stage: dict[str, Any], model: str) -> set[Path]:
    """Return the files and folders of code that a stage depends on, for one model."""
    paths = [Path(dep.replace("${model}", model).removeprefix("../../")) for dep in stage["deps"]]
    if "settings/code.json" in params(stage):  # has the digest of the file of the model
        paths.append(Path("minet/models", f"{model}.py"))
    return {path for path in paths if path.parts[0] in ("minet", "stages")}


def loaded(stage: str, model: str) -> set[Path]:
    """Return the files of code that a stage loads, without those that are only a docstring.

    A run imports only the file of its builder, which its settings name; `resolve` and the zoo's
    `rows` try every model.
    """
    models = {"train": [model], "evaluate": [model], "cost": [model], "resolve": MODELS}
    files = closure(Path("stages", f"{stage}.py"))
    for name in (models | {"rows": MODELS}).get(stage, []):
        files |= closure(Path("minet/models", f"{name}.py"))
    return {file for file in files if not is_docstring_only(file)}


def covers(dep: Path, file: Path) -> bool:
    """Return whether a dependency is a file or a folder that contains it."""
    return dep == file or dep in file.parents


def check_code_deps(name: str, stage: dict[str, Any]) -> None:
    """Assert that a stage's dependencies cover all code that it loads, each some of it."""
    for model in MODELS:
        deps, files = code_deps(stage, model), loaded(name, model)
        missing = {file for file in files if not any(covers(dep, file) for dep in deps)}
        assert not missing, f"{name} with {model} loads files that its dependencies do not cover"
    used = set().union(*(loaded(name, model) for model in MODELS))
    deps = set().union(*(code_deps(stage, model) for model in MODELS))
    unused = {dep for dep in deps if not any(covers(dep, file) for file in used)}
    assert not unused, f"{name} depends on code that no model's run loads"


@pytest.mark.parametrize("stage", [*STAGES, *(f"{name}_also" for name in ONLY_ALSO)])
def test_dependencies_of_a_stage_cover_the_code_it_loads(pipeline, stage: str) -> None:
    check_code_deps(stage.removesuffix("_also"), pipeline[stage])


# an edit of the zoo, of statistics or of another model must not rerun these stages
@pytest.mark.parametrize("stage", ["sample", "index", "beton", "weights", "train", "evaluate"])
def test_an_expensive_stage_does_not_depend_on_the_zoo_or_on_other_models(
    pipeline, stage: str
) -> None:
    deps = code_deps(pipeline[stage], "cnn3")
    rooms = ("minet/zoo/run.py", "minet/stats/comparison.py", "minet/models/rrdb.py")
    for room in (*rooms, "minet/models/registry.py", "minet/params.py", "minet/dry_run.py"):
        assert (ROOT / room).exists()
        assert not any(covers(dep, Path(room)) for dep in deps), room


@pytest.fixture(scope="module")
def zoo_pipeline() -> dict[str, Any]:
    """Return the stages of zoo/dvc.yaml as plain data, one of each kind."""
    stages = yaml.safe_load(read(Path("zoo/dvc.yaml")))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


# train, evaluate and cost depend on zoo/code, a record of the code for each model; the stage `code`
# reads all of it
@pytest.mark.parametrize(
    "stage", ["rows", "sample", "index", "beton", "weights", "compare", "report"]
)
def test_dependencies_of_a_zoo_stage_cover_the_code_it_loads(zoo_pipeline, stage: str) -> None:
    check_code_deps(stage, zoo_pipeline[stage])


def test_settings_of_the_zoo_keep_their_comments_when_one_is_changed(tmp_path: Path) -> None:
    """`dvc exp run -S zoo/params.yaml:budget=published` rewrites the file."""
    path = tmp_path / "params.yaml"
    path.write_text(read(Path("zoo/params.yaml")), encoding="utf-8")
    apply_overrides(path, ["budget=published"])
    before, after = read(Path("zoo/params.yaml")).split("\n"), path.read_text().split("\n")
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [("budget: smoke", "budget: published")]


def test_stages_are_those_of_dvc_yaml(pipeline) -> None:
    assert set(pipeline) == {*STAGES, *(f"{name}_also" for name in (*OF_A_MODEL, *ONLY_ALSO))}
    for name, stage in pipeline.items():
        words = stage["cmd"].removeprefix("env PYTHONPATH=../.. ").split()
        assert words[:3] == ["python", "-m", f"stages.{name.removesuffix('_also')}"]


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_a_stage_is_the_same_text_for_the_chosen_model_and_for_one_beside_it(
    pipeline, name: str
) -> None:
    """DVC's run cache compares the text, so that a model trained in one is free in the other."""
    chosen, other = dict(pipeline[name]), dict(pipeline[f"{name}_also"])
    assert (chosen.pop("wdir"), other.pop("wdir")) == ("runs/current", "runs/${item}")
    assert chosen == other
    assert "${" not in str(chosen)


def test_each_model_has_a_folder_in_git() -> None:
    """DVC refuses a stage whose folder does not exist."""
    command = ["git", "ls-files", "runs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    folders = ("current", "scores", *MODELS)
    assert sorted(done.stdout.split()) == sorted(f"runs/{name}/.gitkeep" for name in folders)


def test_only_resolve_reads_params_yaml(pipeline) -> None:
    """Each other stage depends only on its resolved settings."""
    readers = {name for name, stage in pipeline.items() if "params.yaml" in params(stage)}
    assert readers == {"resolve"}
    for name in set(STAGES) - {"resolve", "plots"}:
        folder = "settings" if name in OF_A_MODEL else "data/settings"
        settings = [file for file in params(pipeline[name]) if file != "settings/code.json"]
        assert settings == [f"{folder}/{name}.json"]


def test_paths_in_a_command_are_its_dependencies_and_outputs() -> None:
    """In DVC's own view, with templates filled in, no stage reads or writes another file."""
    with Repo(ROOT) as repo:
        for stage in repo.index.stages:
            known = {str(Path(path.def_path)) for path in (*stage.deps, *stage.outs)}
            words = {word for word in stage.cmd.split() if "/" in word or "." in word}
            files = {word for word in words if not word.startswith(("stages.", "PYTHONPATH="))}
            # the zoo's "@" names a file of arguments
            for file in {file.removeprefix("@") for file in files} - known:
                inside = [path for path in known if path.startswith(f"{file}/")]
                # resolve gets folders whose content its outputs do not depend on
                folders = ("params.yaml", "zoo/params.yaml", "data/sample", "data/weights")
                folders = (*folders, "runs/scores")
                exempt = stage.name in ("resolve", "rows") and file in folders
                # settings that change no result
                exempt |= (stage.name, file) == ("train", "settings/runtime.json")
                # of a beton `inputs` depends on the sidecar
                exempt |= stage.name.startswith("inputs@") and file == "data"
                assert inside or exempt, f"{stage.addressing}: {file}"


def test_set_parameter_changes_one_line_of_params_yaml(tmp_path: Path) -> None:
    """params.yaml has the style that `-S` writes; otherwise the first -S reformats it."""
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


def test_the_tree_keeps_the_contract_and_a_forbidden_import_breaks_it(tmp_path: Path) -> None:
    """`make lint` runs the same command on the tree itself."""
    for folder in ("minet", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]

    def lint() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    assert lint().returncode == 0
    with (tmp_path / "minet/core/arrays.py").open("a") as file:
        file.write("\nimport minet.zoo.rows\nimport stages.train\n")
    done = lint()
    assert done.returncode == 1
    assert "2 broken" in done.stdout
    assert "minet.core.arrays -> minet.zoo.rows" in done.stdout
    assert "minet.core.arrays -> stages.train" in done.stdout


def test_dvc_sees_what_a_user_adds_under_data() -> None:
    """If all of data/ were ignored, DVC would not see data/mine.dvc and remove data/mine."""
    with Repo(ROOT) as repo:
        assert not repo.scm.is_ignored("data/")
        assert not repo.scm.is_ignored("data/mine.dvc")
        assert all(repo.scm.is_ignored(f"data/{name}") for name in ("beton", "index", "sample"))
