"""The pipeline with the real DVC on a tiny sample: real files, real processes, real kills."""

import json
import os
import re
import shlex
import shutil
import signal
import time
from itertools import chain
from pathlib import Path

import pytest
import yaml

from minet.beton.format import read_format
from minet.core.files import read_csv, read_json
from minet.models.registry import MODELS
from tests.helpers.pinned import DEPTHS, PINNED
from tests.helpers.project import Clone, Project, digest, ran, ran_in_order
from tests.helpers.stage import call_stage
from tests.helpers.tree import ROOT

RESTORE = "git checkout -q . && dvc checkout -q"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose pipeline has run once from scratch, with one worker."""
    made = Project(tmp_path_factory.mktemp("first") / "minet")
    output = made.run("dvc repro", MINET_WORKERS="1")
    assert ran_in_order(output) == {
        *("resolve", "sample", "index", "beton@train", "beton@val", "beton@test", "weights"),
        *("train", "evaluate", "cost", "plots", "publish"),
    }
    made.run("git add -A && git commit -q -m results")
    return made


def test_the_pipeline_writes_all_its_results(project: Project) -> None:
    test, published = project.record("test"), project.published()
    assert {"accuracy", "accuracy_low", "accuracy_high", "top5", "loss", "count"} <= test.keys()
    assert {"precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1"} <= set(test)
    assert test["accuracy_low"] <= test["accuracy"] <= test["accuracy_high"]
    assert test["count"] == 12
    assert list(project.record("channels")) == ["RGB", "RG", "GB", "RB", "R", "G", "B"]
    assert project.record("channels")["RGB"]["accuracy"] == test["accuracy"]
    cost = {"parameters", "macs", "flops", "parameter_mb", "activation_mb", "depth", "uncounted"}
    assert cost <= project.record("cost").keys()
    assert read_json(project.folder / "data/index/data.json")["train"]["images"] == 48
    assert project.record("speed")["train_images_per_s"] > 0
    metadata = project.record("model")
    assert metadata["model"] == "rrdb"
    assert len(metadata["classes"]) == 4
    assert published.pop("val_accuracy") == project.record("train")["val_accuracy"]
    everything = test | project.record("cost")
    assert published == {name: everything[name] for name in published}
    assert [row["model"] for row in read_csv(project.folder / "metrics/models.csv")] == ["rrdb"]
    assert not project.partials()
    assert not list((project.folder / ".resume").iterdir()), "a snapshot is left after its run"


def test_the_cache_does_not_double_the_disk(project: Project) -> None:
    """The cache has no copies of outputs where the file system supports links (ext4 does)."""
    assert project.run("dvc config cache.type").strip() == "reflink,hardlink,copy"
    if re.search("Cache types:.*reflink", project.run("dvc doctor")):
        pytest.skip("the number of links does not count reflinks")
    for name in ("data/beton/train.beton", "runs/current/model.safetensors"):
        assert (project.folder / name).stat().st_nlink == 2


def test_plots_load_in_dvc(project: Project) -> None:
    """Every plot of dvc.yaml is found; titles name the model, and matrices the classes."""
    plots = json.loads(project.run("dvc plots show --json 2>/dev/null"))
    assert not plots.get("errors")
    names = {name.rpartition("::")[2] for name in plots["data"]}
    charts = {"Loss", "Accuracy", "Confusion", "Most frequent mistakes", "Recall by class"}
    assert names == charts | {"Channels", "plots/samples.png", "plots/mistakes.png"}
    specs = {name.rpartition("::")[2]: plot[0] for name, plot in plots["data"].items()}
    contents = {name: specs[name]["content"] for name in charts | {"Channels"}}
    assert all(spec["title"]["text"].endswith(" of rrdb") for spec in contents.values())
    classes = {row["name"] for row in read_csv(project.folder / "data/index/classes.csv")}
    cells = contents["Confusion"]["data"]["values"]
    assert {cell["true"] for cell in cells} == {cell["predicted"] for cell in cells} == classes


def test_a_second_run_does_nothing_in_less_than_3_seconds(project: Project) -> None:
    """With all rows of the zoo, which DVC reads too; repeated while other tests use the cores."""
    shutil.copy(ROOT / "zoo/params.yaml", project.folder / "zoo/params.yaml")
    seconds: list[float] = []
    while len(seconds) < 2 or (min(seconds) >= 3 and len(seconds) < 5):
        started = time.monotonic()
        output = project.run("dvc repro")
        seconds.append(time.monotonic() - started)
        assert ran(output) == []
        assert "up to date" in output
    assert min(seconds) < 3, seconds
    project.run("git checkout -q zoo/params.yaml")


def test_another_model_runs_only_what_depends_on_it_and_the_first_comes_from_the_cache(
    project: Project,
) -> None:
    before = project.digests()
    output = project.run("dvc exp run -S model=cnn3")
    assert ran_in_order(output) == {*("resolve", "train", "evaluate", "cost", "plots", "publish")}
    diff = json.loads(project.run("dvc metrics diff --json"))
    assert set(diff) == {"metrics/test.json"}
    parameters = diff["metrics/test.json"]["parameters"]
    assert parameters["old"] != parameters["new"]
    diff = project.run("git diff --unified=0 params.yaml")
    assert re.findall(r"^[-+]\w.*", diff, re.MULTILINE) == ["-model: rrdb", "+model: cnn3"]
    output = project.run("dvc exp run -S model=rrdb")
    assert "Stage 'train' is cached" in output
    assert "train" not in ran(output)
    assert project.digests() == before
    project.run(RESTORE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model=rrbd", "model is 'rrbd'; did you mean rrdb?"),
        ("data.root=data/typo", "data.root is 'data/typo'; no such folder"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("+models.rrdb.depth=3", "models.rrdb.depth is not a setting; allowed: growth"),
                (
                    "models.cnn3.channels=1 -S model=cnn3",
                    "does not take batches of 2 x 3 x 32 x 32",
                ),
                ("train.epochs=-1", "train.epochs is -1; input should be greater than or equal"),
                ("models.rrdb.growth=wide", "models.rrdb.growth is 'wide'; input should be a val"),
                ("models.rrdb.growth=0", "models.rrdb: growth is 0; must be at least 1"),
                ("data.val=value.txt", "data.val is 'value.txt'; no such file in data/sample (la"),
                ("data.layout=folders", "data.train is 'train.txt'; no such folder in data/sampl"),
            )
        ),
    ],
)
def test_a_mistake_is_reported_and_changes_no_output(
    project: Project, change: str, message: str
) -> None:
    outputs = [path for name in ("data", "runs", "plots", "metrics")
               for path in (project.folder / name).rglob("*") if path.is_file()]  # fmt: skip
    before = {path: digest(path) for path in outputs}
    output = project.run(f"dvc exp run -S {change}", code=255)
    assert message in output
    assert "Traceback" not in output
    assert {path: digest(path) for path in before} == before
    # git compares a file's text only if its time or size has changed
    project.run("touch params.yaml && git checkout -q params.yaml")
    assert ran(project.run("dvc repro")) == []


def test_a_killed_run_from_scratch_with_two_workers_ends_with_the_same_bytes(
    project: Project, tmp_path: Path
) -> None:
    """SIGKILL ends DVC and the training within an epoch; the next `dvc repro` resumes there."""
    other = Project(tmp_path / "minet")
    with other.running("exec dvc repro", MINET_WORKERS="2") as process:
        saves: set[int] = set()
        deadline = time.monotonic() + 300
        while len(saves) < 6 and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            snapshots = list(other.folder.glob(".resume/*/state.pt"))
            saves |= {path.stat().st_mtime_ns for path in snapshots if path.exists()}
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    output = other.run("dvc repro", MINET_WORKERS="2")
    again = ran_in_order(output)
    # training does not need the test split, which DVC may prepare later
    later = {"beton@test", "evaluate", "cost", "plots", "publish"}
    assert {"train"} <= again <= {"train"} | later, "a stage that had ended ran again"
    resumed = re.search(r"resumed at epoch (\d), step (\d+)", output)
    assert resumed, output
    assert 0 < int(resumed[1]) * 12 + int(resumed[2]) < 36
    assert other.digests() == project.digests()
    assert not other.partials()
    assert not list((other.folder / ".resume").iterdir())


def test_only_a_changed_split_is_prepared_again(project: Project) -> None:
    output = project.run("dvc exp run -S sample.val=14")
    stages = {"resolve", "sample", "index", "beton@val", "train"}
    assert stages <= ran_in_order(output)
    assert not {"beton@train", "beton@test"} & set(ran(output))
    assert read_format(project.folder / "data/beton/val.beton").labels.size == 14
    project.run(RESTORE)
    assert ran(project.run("dvc repro")) == []


def test_a_setting_that_changes_no_result_trains_nothing(project: Project) -> None:
    """tests/stages/test_resolve.py goes through all of them."""
    before = project.digests()
    output = project.run("dvc exp run -S data.cache=stream -S train.processes=2")
    assert ran(output) == ["resolve"]
    assert 'data.cache is "stream" (was "auto"): it changes no result' in output
    assert project.digests() == before
    project.run(RESTORE)


@pytest.mark.parametrize("cache", ["stream", pytest.param("resident", marks=pytest.mark.slow)])
def test_the_cache_setting_changes_no_byte(project: Project, cache: str) -> None:
    """The default is resident for small data."""
    before = project.digests()
    project.run(f"dvc exp run -S data.cache={cache}")
    assert ran(project.run("dvc repro --force --single-item train")) == ["train"]
    assert project.digests() == before
    project.run(RESTORE)


def test_models_are_trained_beside_the_chosen_one_and_then_free_as_it(project: Project) -> None:
    """The chosen model may be named too: its run is the one in runs/current."""
    output = project.run("dvc exp run -S 'also=[pool_attention,rrdb]'")
    parts = ("settings", "train", "evaluate", "cost", "score")
    assert {f"{part}_also@pool_attention" for part in parts} <= set(ran(output))
    assert "Stage 'train_also@rrdb' is cached" in output
    assert not {"train", "evaluate", "cost", "plots"} & set(ran(output))
    table = read_csv(project.folder / "metrics/models.csv")
    assert [row["model"] for row in table] == ["rrdb", "pool_attention"]
    assert float(table[1]["accuracy"]) == project.record("test", "pool_attention")["accuracy"]
    assert set(project.published()) == {*table[0]} - {"model", "epoch_s"}
    output = project.run("dvc exp run -S model=pool_attention")
    assert set(ran(output)) == {"resolve", "plots", "publish"}
    assert "Stage 'train' is cached" in output
    assert project.record("model")["model"] == "pool_attention"
    table = read_csv(project.folder / "metrics/models.csv")
    assert [row["model"] for row in table] == ["pool_attention", "rrdb"]
    assert ran(project.run("dvc exp run -S 'also=[]'")) == ["resolve", "publish"]
    assert len(read_csv(project.folder / "metrics/models.csv")) == 1
    assert ran(project.run("dvc repro")) == []
    project.run(RESTORE)
    assert ran(project.run("dvc repro")) == []


def test_an_edit_of_a_model_trains_that_one_again(project: Project) -> None:
    """Stages depend on the digest of its file, which `resolve` writes."""
    again_of_rrdb = {"train", "evaluate", "cost", "publish", "plots"}  # model.json has a new digest
    for name, again in (("cnn3", set()), ("rrdb", again_of_rrdb)):
        with (project.folder / f"minet/models/{name}.py").open("a") as file:
            file.write("# an edit\n")
        assert set(ran(project.run("dvc repro"))) == {"resolve", *again}  # to the same bytes
    project.run(RESTORE)


# several commands in one process, since starting Python and importing torch takes most of the time
RUN_STAGES = """
import os, runpy, shlex, sys
sys.path[0] = root = os.getcwd()
for command in sys.argv[1:]:
    folder, _, command = command.partition(":")
    _, module, *arguments = shlex.split(command.partition("python ")[2])
    sys.argv = [module, *arguments]
    os.chdir(os.path.join(root, folder))
    runpy.run_module(module, run_name="__main__")
"""


def test_a_stage_run_by_hand_does_not_change_the_cache_through_a_hard_link(
    project: Project,
) -> None:
    """Each stage writes beside its outputs and renames; root may write to read-only files."""
    cache = project.folder / ".dvc/cache/files/md5"
    project.run("dvc config cache.type hardlink && dvc checkout --relink -q")
    before = {path: digest(path) for path in cache.rglob("*") if path.is_file()}
    linked = {path.stat().st_ino for path in before}
    folders = (project.folder / name for name in ("data", "runs", "plots"))
    files = chain.from_iterable(folder.rglob("*") for folder in folders)
    outputs = [path for path in files if path.stat().st_ino in linked]
    kinds = {path.suffix for path in outputs}
    assert {".beton", ".json", ".csv", ".safetensors", ".png", ".npz", ".JPEG"} <= kinds
    stages = yaml.safe_load((project.folder / "dvc.yaml").read_text())["stages"]
    train = stages.pop("train")  # alone: its fingerprint covers the loaded modules
    project.run(f"cd {train['wdir']} && {train['cmd']}")
    commands = [
        f"{stage.get('wdir', '')}:{stage['cmd'].replace('${item.split}', split)}"
        for stage in stages.values()
        if "foreach" not in stage
        for split in (("train", "val") if "matrix" in stage else ("",))
    ]
    project.run(shlex.join(["python", "-c", RUN_STAGES, *commands]))
    replaced = [path for path in outputs if path.stat().st_ino not in linked]
    assert {path.suffix for path in replaced} == kinds
    assert {path: digest(path) for path in before} == before
    project.run(f"{RESTORE} --force")  # of another speed.json
    assert ran(project.run("dvc repro")) == []


def test_training_starts_from_a_file_of_weights(project: Project) -> None:
    """The content of the file counts, not only its name."""
    mine = project.folder / "data/weights/mine.safetensors"
    shutil.copy(project.folder / "runs/current/model.safetensors", mine)
    output = project.run("dvc exp run -S models.rrdb.weights=mine.safetensors")
    assert ran_in_order(output) == {
        *("resolve", "weights", "train", "evaluate", "plots", "publish")
    }
    assert "weights: mine.safetensors; random: none" in output
    metadata = project.record("model")
    assert (metadata["weights"], metadata["reinitialized"]) == ("mine.safetensors", [])
    weights = project.folder / "runs/current/model.safetensors"
    first = digest(weights)
    shutil.copy(weights, mine)
    assert {"weights", "train"} <= ran_in_order(project.run("dvc repro train"))
    assert digest(weights) != first
    mine.unlink()
    project.run(RESTORE)
    assert ran(project.run("dvc repro")) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "mine.safetensors",
            "models.cnn3.weights is 'mine.safetensors'; 0.0.weight is (64, 3, 7, 7) in th",
        ),
        ("none.pt", "no such file in data/weights; found: mine.safetensors"),
        ("imagenet", "models.cnn3.weights is 'imagenet'; allowed: random or a file in data/w"),
    ],
)
def test_weights_that_do_not_fit_the_model_are_reported_before_training(
    project: Project, tmp_path: Path, value: str, message: str
) -> None:
    """The file has the weights of another model; what DVC does then, other tests show."""
    mine = project.folder / "data/weights/mine.safetensors"
    shutil.copy(project.folder / "runs/current/model.safetensors", mine)
    settings = project.params()
    settings["model"] = "cnn3"
    settings["models"]["cnn3"]["weights"] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    paths = ["--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "out")]
    paths += ["--sample", "data/sample", "--weights", "data/weights"]
    paths += ["--run", str(tmp_path / "run"), "--scores", str(tmp_path / "scores")]
    done = call_stage("resolve", *paths, folder=project.folder)
    mine.unlink()
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_imagenet_weights_that_cannot_be_fetched(project: Project) -> None:
    change = "-S model=resnet18 -S models.resnet18.weights=imagenet"
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(project.folder / ".torch")}
    output = project.run(f"dvc exp run {change}", code=255, **nowhere)
    assert "save it as data/weights/resnet18-f37072fd.pth" in output
    project.run(RESTORE)
    assert ran(project.run("dvc repro")) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_by_its_name(project: Project, name: str) -> None:
    """One epoch at 64 px, except a model that takes 224 px only, as its recipe says."""
    input_px = "null" if name == "resnet34_flatten" else "64"
    common = f"-S train.epochs=1 -S train.warmup_epochs=0 -S train.input_px={input_px}"
    common += " -S cost.input_px=224 -S train.save_every_s=60"
    output = project.run(f"dvc exp run -S model={name} {common}")
    assert {"train", "evaluate", "cost", "plots", "publish"} <= set(ran(output))
    pin = PINNED[name][0]
    record = project.record("cost")
    macs = record["macs_convolution"] + record["macs_linear"]
    assert macs == pytest.approx(pin.macs_millions * 1e6, rel=0.02)  # the head has fewer classes
    assert record["depth"] == DEPTHS[name]
    assert project.record("test")["count"] == 12
    metadata = project.record("model")
    assert metadata["model"] == name
    project.run(RESTORE)


def test_queued_experiments_run_in_their_own_folders(project: Project) -> None:
    project.run("dvc exp run --queue -S 'model=rrdb,cnn3' -S train.lr=0.002")
    project.run("dvc exp run --queue -n wrong -S train.lr=-1")
    project.run("dvc queue start -j 1")
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        status = project.run("dvc queue status")
        if not re.search(r"Running|Queued", status):
            break
        time.sleep(2)
    assert len(re.findall("Success", status)) == 2, status
    assert len(re.findall("Failed", status)) == 1, status
    table = project.run("make -s -o .venv/.ready experiments")
    assert len(re.findall(r"Success.*cnn3.*0\.002", table)) == 1, table
    # DVC would show it with the metrics of the commit that it started from
    assert "wrong" not in table
    assert "…" not in table  # no column is cut off


@pytest.fixture(scope="module")
def shared(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a clone of the project that has pushed an experiment of two models to remotes."""
    folder = tmp_path_factory.mktemp("shared")
    made = Clone(project, folder / "first")
    for command in (
        "git config user.name test && git config user.email test@localhost",
        f"dvc remote add -q -d store {folder / 'store'}",
        f"dvc cache dir --local {project.folder / '.dvc/cache'} && dvc checkout -q",
        "git add -A && git commit -q -m remote",
        f"git init -q --bare -b main {folder / 'git'}",
        f"git remote set-url origin {folder / 'git'} && git push -q -u origin HEAD:main",
        "dvc exp run -n other -S model=cnn3 -S 'also=[rrdb]'",
        "dvc push -q --run-cache && dvc exp push origin other",
        RESTORE,
        "dvc push -q",
    ):
        made.run(command)
    return made


def clone_of(shared: Project, folder: Path) -> Clone:
    """Return a clone with a cache of its own and the same remotes, as on another machine."""
    clone, remote = Clone(shared, folder), shared.run("git remote get-url origin").strip()
    clone.run(f"git remote set-url origin {remote}")
    clone.run("git config user.name test && git config user.email test@localhost")
    return clone


@pytest.mark.slow
def test_every_command_works_in_a_clone(shared: Project, tmp_path: Path) -> None:
    """None prints pages of text, whatever the zoo has not run."""
    clone = clone_of(shared, tmp_path / "clone")
    for command in (
        "dvc pull",
        "dvc checkout",
        "dvc status",
        "dvc dag",
        "dvc commit -f",
        "dvc metrics show",
        "dvc metrics diff",
        "dvc params diff",
        "dvc exp run -n seed -S seed=1 -S train.epochs=1 -S train.warmup_epochs=0",
        "dvc metrics diff",
        "dvc exp save -n saved",
        "dvc exp show",
        "dvc exp list",
        "git checkout -q . && dvc checkout -q",
        "dvc exp apply seed",
        "dvc exp branch seed by-seed",
        "dvc exp push origin seed",
        "dvc exp pull origin other",
        "dvc push",
    ):
        output = clone.run(command)
        assert "ERROR" not in output, f"{command}\n{output}"
        assert len(output.splitlines()) <= 100, f"{command}\n{output}"


@pytest.mark.slow
def test_what_one_machine_has_trained_another_does_not_train(
    shared: Project, tmp_path: Path
) -> None:
    """Neither as the same experiment, nor in the other of the two places."""
    clone = clone_of(shared, tmp_path / "clone")
    assert ran(clone.run("dvc exp run --pull")) == []
    output = clone.run("dvc exp run --pull -S model=cnn3")
    assert set(ran(output)) <= {"resolve", "plots", "publish"}
    output = clone.run("dvc exp run --pull -S model=rrdb -S 'also=[cnn3]'")
    cheap = {"resolve", "settings_also@cnn3", "score_also@cnn3", "plots", "publish"}
    assert set(ran(output)) <= cheap
