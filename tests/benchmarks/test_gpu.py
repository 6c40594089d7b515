"""The run on a GPU: its parts and their record, its bundle, its section of the page."""

import ast
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import pages
from benchmarks.gpu import start
from benchmarks.gpu.bundle import LOCKED, MACHINE, UNLOCKED, locked
from benchmarks.gpu.page import card_section, gpu_section
from benchmarks.gpu.parts.images import repeat
from benchmarks.gpu.parts.profile import summary
from benchmarks.gpu.runner import Runner, merged
from benchmarks.gpu.sizes import FULL, QUICK
from benchmarks.gpu.steps import measured_step
from benchmarks.gpu.work import Work, WrongClaimError
from benchmarks.train.job import Job
from minet.beton.config import BetonRunSettings
from minet.beton.reader import BetonReader
from minet.beton.writer import write_beton
from minet.core.arrays import all_indices
from minet.core.errors import InputError
from minet.core.files import digest, read_json, write_json
from tests.helpers.tree import ROOT, closure

REPORT = """
import json, subprocess, sys, time
def report(value, *keys):
    with open({results!r}, "a") as file:
        file.write(json.dumps({{"keys": keys, "value": value}}) + chr(10))
"""
SCRIPTS = {
    "good": "report([1.5], 'rates', 'a'); report([2.5], 'rates', sum(range(10**7)) and 'b')",
    "bad": "report(1, 'first'); print('what went wrong', flush=True); sys.exit(3)",
    # its child has a session of its own
    "slow": "report(1, 'first'); subprocess.Popen([sys.executable, '-c', 'import time; "
    "time.sleep(600)'], start_new_session=True); print('begun', flush=True); time.sleep(600)",
    "last": "report(1, 'first')",
    "asleep": "time.sleep(600)",
}


def run_scripts(folder: Path, limits_s: dict[str, float], seconds: float) -> dict[str, Any]:
    """Run parts that are scripts; return the record that they leave."""

    def command(part: str, results: Path, end: float) -> list[str]:
        assert end > time.time()
        return [sys.executable, "-c", REPORT.format(results=str(results)) + SCRIPTS[part]]

    runner = Runner({"settings": {}}, folder, folder, command)
    runner.run(limits_s, time.time() + seconds)
    return read_json(folder / "gpu.json")


def test_a_part_that_fails_leaves_its_error_and_its_results(tmp_path: Path) -> None:
    parts = run_scripts(tmp_path, {"bad": 60, "good": 60}, 120)["parts"]
    assert parts["bad"]["outcome"] == "failed: exit code 3"
    assert parts["bad"]["log"] == ["what went wrong"]
    assert 0 < parts["good"]["cpu_s"] < 60
    assert parts["bad"]["results"] == {"first": 1}
    assert parts["good"]["outcome"] == "measured"
    assert parts["good"]["results"] == {"rates": {"a": [1.5], "b": [2.5]}}
    log = (tmp_path / "gpu.log").read_text()
    assert log.index("==== bad: failed: exit code 3\nwhat went wrong") < log.index("==== good")


def test_a_part_that_overruns_is_killed_whole_and_keeps_its_results(tmp_path: Path) -> None:
    started = time.time()
    parts = run_scripts(tmp_path, {"slow": 1.5, "last": 3}, 7)["parts"]
    assert time.time() - started < 30
    assert parts["slow"]["outcome"].startswith("overran: killed after ")
    assert parts["slow"]["results"] == {"first": 1}
    assert parts["last"]["outcome"] == "measured"
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    assert not any(b"import time; time.sleep(600)" in command for command in commands)


def test_a_part_without_time_is_left_out_and_a_shorter_one_is_not(tmp_path: Path) -> None:
    parts = run_scripts(tmp_path, {"slow": 600, "last": 10}, 30)["parts"]
    assert parts["slow"] == {"outcome": "left out: time"}
    assert parts["last"]["outcome"] == "measured"
    assert parts["last"]["limit_s"] <= 28


def test_time_that_is_left_goes_to_later_parts_and_the_limits_fit(tmp_path: Path) -> None:
    parts = run_scripts(tmp_path, {"good": 1, "last": 3}, 42)["parts"]
    assert 9 < parts["good"]["limit_s"] <= 10
    assert 35 < parts["last"]["limit_s"] <= 40


def test_the_record_is_valid_while_a_part_runs(tmp_path: Path) -> None:
    def command(part: str, results: Path, _: float) -> list[str]:
        wait = "report(1, 'seen'); time.sleep(1); sys.exit(record != 'running')"
        read = f"record = json.load(open({str(tmp_path / 'gpu.json')!r}))['parts'][{part!r}]"
        script = f"report(0, 'early'); time.sleep(1); {read}['outcome']; {wait}"
        return [sys.executable, "-c", REPORT.format(results=str(results)) + script]

    Runner({"settings": {}}, tmp_path, tmp_path, command).run({"one": 60}, time.time() + 60)
    entry = read_json(tmp_path / "gpu.json")["parts"]["one"]
    assert (entry["outcome"], entry["results"]) == ("measured", {"early": 0, "seen": 1})


def test_an_interrupted_part_is_killed_and_recorded(tmp_path: Path, monkeypatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    clock = SimpleNamespace(time=time.time, sleep=interrupted)
    monkeypatch.setattr("benchmarks.gpu.runner.time", clock)
    started = time.time()
    with pytest.raises(KeyboardInterrupt):
        run_scripts(tmp_path, {"asleep": 60}, 120)
    assert time.time() - started < 30
    assert read_json(tmp_path / "gpu.json")["parts"]["asleep"]["outcome"] == "interrupted"


def test_later_reports_of_a_result_replace_earlier_ones() -> None:
    lines = [json.dumps({"keys": keys, "value": value}) for keys, value in (
        (["a", "b"], 1), (["a", "c"], {"d": 2}), (["a", "b"], 3), (["a", "c", "e"], 4),
    )]  # fmt: skip
    assert merged(lines) == {"a": {"b": 3, "c": {"d": 2, "e": 4}}}


def test_a_measurement_that_fails_does_not_stop_the_next_ones(tmp_path: Path) -> None:
    work = Work(tmp_path, None, QUICK, torch.device("cpu"), tmp_path / "results", time.time() + 9)
    work.attempt("copies", "one", measure=lambda: 1 / 0)
    work.attempt("copies", "two", measure=lambda: [math.nan, 2.0])
    work.claim("resident", found=True, expected=True)
    results = merged((tmp_path / "results").read_text().splitlines())
    failed = {"failed": "ZeroDivisionError: division by zero"}
    assert results["copies"] == {"one": failed, "two": ["NaN", 2.0]}
    with pytest.raises(
        WrongClaimError, match="^copies, one is ZeroDivisionError: .*, not measured$"
    ):
        work.check_claims()


def test_every_part_has_a_module_and_the_limits_are_those_of_nine_minutes() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks/gpu/parts").glob("*.py")} - {"__init__"}
    assert modules == set(FULL.limits_s)
    assert list(QUICK.limits_s) == list(FULL.limits_s)
    assert sum(FULL.limits_s.values()) == 9 * 60
    assert sum(QUICK.limits_s.values()) <= 3 * 60


def write_small(path: Path, storage: str) -> None:
    """Write a beton of 5 images."""
    from PIL import Image

    rng, rows = np.random.default_rng(0), []
    for number in range(5):
        file = path.parent / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
        xxh3 = digest(file.read_bytes()).hex()
        rows.append({"path": file.name, "label": str(number), "xxh3": xxh3})
    sizes = {"resize_px": 32, "crop_px": 32, "jpeg_quality": 90, "storage": storage}
    settings = BetonRunSettings.model_validate(sizes | {"root": str(path.parent)})
    record = write_beton(path, rows, settings, workers=1, progress=lambda items, _: items)
    write_json(path.with_suffix(".json"), record)


@pytest.mark.parametrize("storage", ["raw", "jpg"])
@pytest.mark.parametrize("count", [3, 5, 13])
def test_a_repeated_beton_has_the_images_of_the_first_cyclically(
    storage: str, count: int, tmp_path: Path
) -> None:
    write_small(tmp_path / "once.beton", storage)
    repeat(tmp_path / "once.beton", tmp_path / "often.beton", count)
    once, often = (BetonReader(tmp_path / f"{name}.beton") for name in ("once", "often"))
    pixels = {reader: np.empty((reader.sidecar["count"], 32, 32, 3), np.uint8)
              for reader in (once, often)}  # fmt: skip
    for reader, images in pixels.items():
        reader.read(all_indices(len(images)), images)
    expected = (np.arange(count) - count) % 5
    assert often.format.labels.tolist() == expected.tolist()
    assert (pixels[often] == pixels[once][expected]).all()
    assert often.sidecar["mean"] == once.sidecar["mean"]


def test_a_table_that_does_not_fit_before_the_images_is_refused(tmp_path: Path) -> None:
    write_small(tmp_path / "once.beton", "raw")
    with pytest.raises(ValueError, match="leaves no room for a table of 400000 images"):
        repeat(tmp_path / "once.beton", tmp_path / "often.beton", 400_000)
    assert not (tmp_path / "often.beton").exists()


@pytest.mark.parametrize(("choice", "compiled"), [("always", True), ("never", False)])
def test_a_compiled_step_is_known_by_its_graphs(
    choice: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a backend that generates no code, which would take a minute."""
    compile_model = partial(torch.compile, backend="eager", dynamic=False)
    monkeypatch.setattr("minet.train.step._compiled", compile_model)
    job = Job("cnn3", 4, 32, batches=1, warm_up=1, repeats=2, steps=1)
    for _ in range(2):  # the count starts anew
        result = measured_step(job, torch.device("cpu"), compile=choice)
        assert result["compiled"] is compiled
        assert (result["compiled_graphs"] == 1) is compiled
        assert len(result["images_per_s"]) == 2


def test_a_step_that_fails_leaves_its_error() -> None:
    job = Job("cnn3", 4, 2, batches=1, warm_up=1, repeats=1, steps=1)
    assert measured_step(job, torch.device("cpu"))["failed"].startswith("RuntimeError: ")


def third_party_imports() -> dict[str, Path]:
    """Return the modules of others that a run on a GPU may import, with a file that does."""
    entries = ["stages/train.py", "benchmarks/dynamic.py", "benchmarks/train/child.py",
               "benchmarks/gpu/__main__.py", "benchmarks/gpu/child.py", "benchmarks/gpu/watched.py",
               "tests/conftest.py"]  # fmt: skip
    files = {Path(entry) for entry in entries}
    files |= {path.relative_to(ROOT) for path in (ROOT / "benchmarks/gpu/parts").glob("*.py")}
    files |= {path.relative_to(ROOT) for path in (ROOT / "minet/models").glob("*.py")}
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    files |= {path.relative_to(ROOT) for path in tests if "pytest.mark.gpu" in path.read_text()}
    found = {}
    for file in set().union(*map(closure, files)):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0]: file for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found[node.module.partition(".")[0]] = file
    own = {"minet", "stages", "benchmarks", "tests"}
    return {
        name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, *own}
    }


def needs(names: Any) -> Iterator[str]:
    """Yield packages and what they need on the machine, all that are installed here."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name in (*UNLOCKED, "pytorch-lightning"):  # installed for `make bench-train` only
            continue
        for need in map(Requirement, requires(name) or ()):
            environment = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
            if need.marker is None or need.marker.evaluate(environment):
                waiting.append(need.name)


# only where there are no photographs, and there are in a bundle; only with train.dvclive
NOT_NEEDED = {"sklearn", "dvclive"}


def test_the_bundle_has_all_that_a_run_imports_and_the_machine_lacks() -> None:
    packages = packages_distributions()
    there = {*LOCKED, *UNLOCKED, *needs(MACHINE)}
    for module, file in third_party_imports().items():
        names = {canonicalize_name(name) for name in packages.get(module, [module])}
        assert names & there or module in NOT_NEEDED, f"{file} imports {module}"


def test_the_bundle_has_what_its_packages_need() -> None:
    assert set(needs(LOCKED)) <= {*LOCKED, *needs(MACHINE)}


def test_the_lock_has_one_version_of_each_package_of_the_bundle() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    text = locked(LOCKED, lock)
    assert re.findall(r"^([\w-]+)==", text, re.MULTILINE) == sorted(LOCKED)
    assert text.count("--hash=sha256:") >= len(LOCKED)
    with pytest.raises(InputError, match="does not have one version of numpy, no-such-package"):
        locked(("pydantic", "numpy", "no-such-package"), lock)


def write_bundle(folder: Path) -> None:
    (folder / "wheels").mkdir(parents=True)
    for name in ("pytest-0.1", "minet_absent-2.0"):
        wheel = folder / f"wheels/{name}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name.partition('-')[0]}/__init__.py", "ORIGIN = 'bundle'\n")
    write_json(folder / "bundle.json", {"commit": "abc", "code": "123"})


def test_only_what_is_missing_is_unpacked(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    record = start.install(tmp_path, tmp_path / "site")
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["minet_absent"]
    assert record["unpacked"] == {"minet_absent": "2.0"}
    assert record["present"] == {"pytest": pytest.__version__}
    assert record["bundle_commit"] == "abc"


def test_the_digest_of_the_code_changes_with_it(tmp_path: Path) -> None:
    (tmp_path / "minet").mkdir()
    (tmp_path / "minet/a.py").write_text("1\n")
    before = start.code_digest(tmp_path)
    (tmp_path / "minet/a.txt").write_text("2\n")
    assert start.code_digest(tmp_path) == before
    (tmp_path / "minet/a.py").write_text("2\n")
    assert start.code_digest(tmp_path) != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "cpu"), "--device cpu needs --quick"),
        (("--parts", "lops"), "invalid choice: 'lops'"),
        ((), "required: --out"),
    ],
)
def test_wrong_arguments_are_an_error(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path)] if arguments else []
    command = ["bash", str(ROOT / "benchmarks/gpu.sh"), *out, *arguments]
    environment = os.environ | {"PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.glob("minet-gpu-*")), "the scratch folder is left"


def event(name: str, start_us: float, end_us: float) -> Any:
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start_us, end=end_us))


def test_a_profile_is_summarized() -> None:
    """Kernels from 0 to 10, 5 to 20 (they overlap), 70 to 100, 100 to 100.5 us."""
    events = [event("conv", 70, 100), event("conv", 0, 10), event("relu", 5, 20),
              event("copy", 103, 103.5)]  # fmt: skip
    result = summary(events, {"cudaStreamSynchronize": 0.05})
    assert result["span_ms"] == pytest.approx(0.1035)
    assert result["busy"] == pytest.approx(50.5 / 103.5)
    assert result["gaps"]["count"] == 1, "3 us are a launch"
    assert result["gaps"]["longest"] == [{"ms": 0.05, "after": "relu", "before": "conv"}]
    assert result["kernels"][0] == {
        "name": "conv",
        "ms": pytest.approx(0.04),
        "calls": 2,
        "share": pytest.approx(40 / 55.5),
    }
    assert result["host_waits_ms"] == {"cudaStreamSynchronize": 0.05}
    assert result["ms_by_kind"]["convolution"] == pytest.approx(0.04)


def record_of_a_card() -> dict[str, Any]:
    """Return a made-up record in which some parts failed: data of this test, no measurement."""

    def loop(*rates: float) -> dict[str, Any]:
        return {"images_per_s": list(rates), "loss_first": 2.0, "loss_last": 1.0}

    def step(model: str, rate: float) -> dict[str, Any]:
        shape = {"model": model, "batch_size": 256}
        return shape | {"images_per_s": [rate], "warm_up_s": 3.0, "peak_memory_gb": 2.5}

    end_to_end = {
        "images": 63_325,
        "images_per_s": [12_000.0, 13_200.0, 14_000.0],
        "first_step_s": 40.0,
        "run": {"bare_images_per_s": [12_000.0, 13_200.0], "peak_memory_gb": 21.5},
        "speed": {"batch_size": 512, "epoch_s_first": 40.0, "epoch_s_median": 5.0,
                  "save_share": 0.01},
    }  # fmt: skip
    loops = {
        "job": {"model": "resnet18", "batch_size": 512},
        "competitors": {
            "minet": loop(13_000.0),
            "torchvision": loop(4_000.0, 5_000.0, 6_000.0),
            "timm, compiled": loop(10_000.0),
            "Lightning": {"failed": "ModuleNotFoundError"},
        },
    }
    models = {
        "resnet18, batch 256": step("resnet18", 12_000.0),
        "dynamic_resnet18, batch 256": step("dynamic_resnet18", 8_000.0),
        "resnet50, batch 1024": {"failed": "OutOfMemoryError"},
    }
    loaders = {
        "alone": {"raw, resident": {"images_per_s": [80_000.0, 90_000.0, 100_000.0]}},
        "loop": {"jpg": {"failed": "RuntimeError: no"}},
    }
    shape = "64-64, 56 px, 3x3, stride 1, chosen grouped"
    forms = {"256": {f"{shape}: static": [0.5], f"{shape}: grouped": [1.25]}, "64": {"failed": "x"}}
    tests = {
        "tests": {"a": "passed", "b": "passed", "c": "failed in call: E\nassert 1 == 2"},
        "claims": {"differing files": {"found": ["model.json"], "expected": []}},
    }
    return {
        "settings": {"device": "cuda", "quick": False, "origin": {"bundle_commit": "abc1234"}},
        "parts": {
            "environment": {
                "outcome": "measured",
                "seconds": 9.0,
                "limit_s": 25.0,
                "results": {"card": {"name": "NVIDIA X100"}, "versions": {"torch": "2.11"}},
            },
            "end_to_end": {"outcome": "measured", "results": end_to_end},
            "loops": {"outcome": "failed: exit code 1", "results": loops},
            "models": {"outcome": "overran: killed after 85 s", "results": {"steps": models}},
            "tests": {"outcome": "failed: exit code 1", "results": tests},
            "loaders": {"outcome": "measured", "results": loaders},
            "profile": {"outcome": "left out: time"},
            "sweep": {"outcome": "measured", "results": {"forms": forms}},
        },
    }


def test_the_section_of_a_card_compares_with_the_aims() -> None:
    text = card_section(record_of_a_card())
    assert text.startswith("### NVIDIA X100\n\nTorch 2.11, code abc1234.")
    for row in (
        "images/s | at least 12,000 | 13,200 | 1.10 |",
        "of the bare step | at least 0.98 | 1.05 | 1.07 |",
        "fastest other loop's | at least 1.3 | 1.30 | 1.00 |",
        "with validation and saving, s | at most 6 | 5.00 | 1.20 |",
        "of resnet18's | at most 1.4 | 1.50 | 0.93 |",
        "| resnet50, batch 1024 | failed: OutOfMemoryError |  |  |",
        "Failed: Lightning, resnet18, batch 512: ModuleNotFoundError",
        "| failed: `c` | assert 1 == 2 |",
        "| differing files | ['model.json'] |",
        "| tests | failed: exit code 1 |  |  | differing files: ['model.json'], not [] |",
        "| models | overran: killed after 85 s |",
        "| profile | left out: time |",
        "| raw, resident | 90,000 (80,000-100,000) |",
        "| jpg | failed: RuntimeError: no |",
        "| 64-64, 56 px, 3x3, stride 1 | 0.50 (0.50-0.50) | **1.25 (1.25-1.25)** |",
    ):
        assert row in text, row
    assert "rehearsal" not in text


def test_aims_without_a_measurement_are_not_measured() -> None:
    record = record_of_a_card()
    record["parts"] = {"end_to_end": {"outcome": "failed: exit code 1"}}
    text = card_section(record)
    assert text.count("| not measured |") == 5
    assert text.startswith("### cuda\n")


def test_the_page_has_the_section_of_the_records_or_the_command() -> None:
    text = pages.tables(ROOT)["gpu"]
    assert f"<!-- gpu -->\n{text}\n<!-- /gpu -->" in (ROOT / pages.PAGE).read_text()


def test_without_a_record_the_section_is_the_command_and_with_one_it_is_not(tmp_path: Path) -> None:
    assert "bash benchmarks/gpu.sh --bundle gpu-bundle" in gpu_section(tmp_path)
    write_json(tmp_path / "gpu-x100.json", record_of_a_card())
    assert "benchmarks/gpu.sh" not in gpu_section(tmp_path)
    assert gpu_section(tmp_path) == card_section(record_of_a_card())


BARE = ("torch==2.11.*", "torchvision", "pytorch-lightning", "numpy", "numba", "safetensors",
        "onnxruntime")  # fmt: skip


def python_312() -> str:
    """Return a Python 3.12 that runs here; without one its version, which uv may download."""
    installed = Path.home().glob(".pyenv/versions/3.12*/bin/python3.12")
    for candidate in (shutil.which("python3.12"), *map(str, installed)):
        command = [candidate or "false", "-c", ""]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return command[0]
    return "3.12"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python 3.12 that has only what the machine with a GPU has."""
    folder = tmp_path_factory.mktemp("bare")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    python = folder / "bin/python"
    for arguments in (
        ["venv", "-q", "--python", python_312(), str(folder)],
        ["pip", "install", "-q", "--python", str(python), *BARE],
    ):
        done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"uv {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def rehearsal(bare_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the record of a rehearsal from a bundle alone, without a network."""
    folder = tmp_path_factory.mktemp("rehearsal")
    if subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("`unshare -rn` cannot switch the network off here")
    bundle = folder / "bundle"
    make = [sys.executable, "-m", "benchmarks.gpu.bundle", str(bundle)]
    subprocess.run(make, cwd=ROOT, check=True)
    # other work on the cores must not make a part overrun: what is tested is that all of them run
    command = ["unshare", "-rn", "bash", str(bundle / "code/benchmarks/gpu.sh")]
    options = ["--bundle", "bundle", "--out", "out", "--device", "cpu", "--quick"]
    done = subprocess.run(
        [*command, *options, "--minutes", "40"],
        cwd=folder,
        env=os.environ | {"PYTHON": str(bare_python)},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + (folder / "out/gpu.log").read_text()[-5000:]
    return read_json(folder / "out/gpu.json")


@pytest.mark.slow
def test_a_rehearsal_measures_every_part(rehearsal: dict[str, Any]) -> None:
    outcomes = {name: entry["outcome"] for name, entry in rehearsal["parts"].items()}
    assert outcomes == dict.fromkeys(FULL.limits_s, "measured")
    origin = rehearsal["settings"]["origin"]
    assert origin["bundle_code"] == origin["code"]
    assert {"pydantic", "simplejpeg", "fvcore", "timm"} <= origin["unpacked"].keys()
    assert not {"torch", "numpy"} & origin["unpacked"].keys()


@pytest.mark.slow
def test_a_rehearsal_runs_the_tests_and_compares_bytes(rehearsal: dict[str, Any]) -> None:
    results = rehearsal["parts"]["tests"]["results"]
    assert set(results["tests"].values()) == {"skipped"}, "none needs a GPU"
    assert len(results["tests"]) >= 41
    assert "not collected" not in results
    assert len(results["claims"]) == 5
    assert all(claim["found"] == claim["expected"] for claim in results["claims"].values())


@pytest.mark.slow
def test_the_section_of_a_rehearsal_says_that_it_is_one(rehearsal: dict[str, Any]) -> None:
    text = card_section(rehearsal)
    assert "no figure below means anything" in text
    assert "not measured" not in text
    for title in ("End to end:", "Other loops", "Loaders", "FLOPs", "choice changed", "Algorithms"):
        assert title in text
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
