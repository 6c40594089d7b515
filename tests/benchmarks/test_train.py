"""Benchmark of the training step: equal training in all loops, records, tables."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from benchmarks import pages
from benchmarks.processes import FailedError
from benchmarks.train import rounds
from benchmarks.train.competitors import COMPETITORS
from benchmarks.train.job import Clock, Job, cycled, float_batches, recipe_of, uint8_batches
from benchmarks.train.page import loops_table, tables
from benchmarks.train.sizes import CPU, GPU, size_for
from benchmarks.train.trace import kind_of
from minet.core.files import read_json
from tests.helpers.tree import ROOT

TINY = Job("rrdb", 8, 32, batches=3, warm_up=1, repeats=2, steps=3, momentum=0.0)
CPU_DEVICE = torch.device("cpu")
PEERS = {"timm": "timm", "Lightning": "pytorch_lightning"}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch) -> None:
    """A second thread makes tiny operations slower."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def losses(folder, name: str, job: Job) -> list[float]:
    return rounds.run_child(folder, "loops", 300.0, name=name, job=job.record())["losses"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[float]:
    """Return the losses of torchvision's loop, step by step."""
    return losses(tmp_path_factory.mktemp("plain"), "torchvision", TINY)


@pytest.mark.parametrize("name", ["minet", "timm", "Lightning"])
def test_all_loops_have_the_same_losses_with_plain_sgd(name: str, expected, tmp_path) -> None:
    """The same weights and batches in float32: a faster loop must not train less."""
    if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed; `make bench-train` installs it")
    actual = losses(tmp_path, name, TINY)
    assert len(actual) == len(expected) == TINY.all_steps == 7
    assert actual == pytest.approx(expected, abs=1e-3)
    assert expected[-1] < expected[0] - 0.02


def run_quick(out, *flags: str) -> dict:
    """Run a smoke test with one small model; return its record."""
    command = [sys.executable, "-m", "benchmarks.train", "--quick", "--models", "rrdb"]
    command += ["--out", str(out), *flags]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    (path,) = out.glob("*.json")
    return read_json(path)


PARTS = ("stall", "mfu", "trace")


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict:
    """Return the record of the default parts, except for the loops, which take longest."""
    return run_quick(tmp_path_factory.mktemp("quick"), "--parts", *PARTS)


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="expects the record of a CPU")


@needs_no_gpu
def test_quick_run_measures_the_parts(quick) -> None:
    stall = quick["stall"]["rrdb"]
    assert {name: len(rates) for name, rates in stall["images_per_s"].items()} == {
        "memory": 2,
        "stream": 2,
        "resident": 2,
    }
    mfu = quick["mfu"]["rrdb"]
    assert mfu["step_flops"] == 6 * mfu["forward_macs"]
    assert mfu["peak_flops_per_s"] == max(map(max, mfu["measured_flops_per_s"].values()))
    trace = quick["trace"]["rrdb"]["ms_by_kind"]
    assert min(trace[kind] for kind in ("convolution", "batch norm", "augmentation")) > 0
    assert quick["machine"]["device"] == "cpu"
    assert quick["settings"]["quick"]


def assert_tables(record: dict, *parts: str) -> None:
    texts = tables("train-cpu", record)
    assert list(texts) == [f"train-cpu {part}" for part in parts]
    for text in texts.values():
        columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
        assert len(columns) == 1


@needs_no_gpu
def test_tables_of_a_quick_run_have_consistent_columns(quick) -> None:
    assert_tables(quick, *PARTS)


@pytest.mark.slow
@needs_no_gpu
def test_quick_run_of_the_default_parts_measures_every_loop(tmp_path) -> None:
    record = run_quick(tmp_path)
    assert_tables(record, "loops", *PARTS)
    loops = record["loops"]["rrdb, batch 4"]["competitors"]
    assert list(loops) == [name for name, one in COMPETITORS.items() if not one.gpu_only]
    for name, loop in loops.items():
        if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
            assert loop["failed"] == f"ModuleNotFoundError: No module named '{PEERS[name]}'"
            continue
        assert len(loop["images_per_s"]) == 2, name
        assert min(loop["images_per_s"]) > 0, name
        assert loop["loss_last"] < loop["loss_first"], name


@pytest.mark.slow
@needs_no_gpu
def test_quick_run_of_epochs_records_the_speed_of_each_model(tmp_path) -> None:
    record = run_quick(tmp_path, "--parts", "epochs")
    assert record["epochs"]["rrdb"]["epoch_s_median"] > 0
    text = tables("train-epochs-cpu", record)["train-epochs-cpu epochs"]
    assert text.splitlines()[2].startswith("| `rrdb` | 64 |")


def test_training_tables_of_the_page_equal_those_of_the_records() -> None:
    page = (ROOT / pages.PAGE).read_text()
    texts = {name: text for name, text in pages.tables(ROOT).items() if name.startswith("train")}
    for name, text in texts.items():
        assert f"<!-- {name} -->\n{text}\n<!-- /{name} -->" in page
    for part in ("loops", "stall", "mfu", "trace"):
        assert page.count(f"<!-- train-cpu {part} -->\n") == 1
    assert page.count("<!-- train-epochs-cpu epochs -->\n") == 1


def test_loops_table_compares_with_the_fastest_peer_and_lists_failures() -> None:
    competitors = {
        "minet": {"images_per_s": [30.0, 20.0, 40.0]},
        "torchvision": {"images_per_s": [10.0, 20.0, 12.0]},
        "timm": {"failed": "out of memory"},
        "Lightning": {"images_per_s": [20.0, 21.0, 19.0]},
    }
    sizes = {"a": {"model": "rrdb", "batch_size": 4, "competitors": competitors}}
    header, _, row, empty, failed = loops_table(sizes).splitlines()
    assert header.startswith("| model | batch | **minet** | torchvision | timm | Lightning |")
    assert row.split(" | ")[2:4] == ["30.0 (20.0-40.0)", "12.0 (10.0-20.0)"]
    assert row.endswith("| failed | 20.0 (19.0-21.0) | 1.50 |")
    assert (empty, failed) == ("", "Failed: timm, rrdb, batch 4: out of memory")


def test_clock_times_whole_repeats_after_the_warm_up() -> None:
    clock = Clock(TINY, CPU_DEVICE)
    for step in range(TINY.all_steps):
        clock.step_ended(torch.tensor(float(step)))
    assert len(clock.seconds()) == TINY.repeats
    assert min(clock.seconds()) >= 0
    assert clock.losses() == [0, 1, 2, 3, 4, 5, 6]


def test_all_loops_get_the_same_images() -> None:
    stored = uint8_batches(TINY, CPU_DEVICE)
    again = float_batches(TINY, CPU_DEVICE, torch.contiguous_format)
    ready = float_batches(TINY, CPU_DEVICE, torch.channels_last)
    assert len(stored) == len(ready) == 3
    for (images, labels), (floats, same), (others, _) in zip(stored, ready, again, strict=True):
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert floats.is_contiguous(memory_format=torch.channels_last)
        assert others.is_contiguous()
        assert torch.equal(labels, same)
        assert torch.equal(floats, others)
        brightness = images.float().mean(dim=(1, 2, 3))
        assert brightness.argsort().tolist() == labels.argsort().tolist()
    steps = [images for images, _ in cycled(stored, 5)]
    assert steps[3] is stored[0][0]
    assert steps[4] is stored[1][0]


def test_only_the_augmented_recipe_augments() -> None:
    plain, augmented = (recipe_of(TINY, augmented=kind) for kind in (False, True))
    assert (plain.augment.flip, plain.augment.crop_scale) == (0.0, (1.0, 1.0))
    assert augmented.augment.flip > 0
    assert augmented.augment.crop_scale != (1.0, 1.0)
    assert plain.model_copy(update={"augment": augmented.augment}) == augmented


def test_failed_competitor_is_left_out_of_later_rounds(monkeypatch, tmp_path) -> None:
    calls = []

    def run_child(folder, part, timeout_s, *, name, job) -> dict:
        calls.append(name)
        if name == "timm":
            raise FailedError("why")
        return {"images": 6, "seconds": [2.0, 3.0], "losses": [2.0, 1.5, 1.0], "compiled_graphs": 1}

    monkeypatch.setattr(rounds, "run_child", run_child)
    results = rounds.run_rounds(tmp_path, ("minet", "timm"), TINY, rounds=2, timeout_s=1.0)
    assert calls == ["minet", "timm", "minet"]
    assert results["timm"] == {"failed": "why"}
    losses = {"loss_first": 2.0, "loss_last": 1.0}
    assert results["minet"] == losses | {"images_per_s": [3, 2, 3, 2], "compiled_graphs": 1}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("sm90_xmma_wgrad_implicit_gemm_bf16", "convolution"),
        ("aten::native_batch_norm_backward", "batch norm"),
        ("triton_red_fused__native_batch_norm_relu_3", "batch norm"),
        ("aten::max_pool2d_with_indices_backward", "pooling"),
        ("aten::_fused_sgd_", "optimizer"),
        ("Optimizer.step#SGD.step", "optimizer"),
        ("aten::threshold_backward", "elementwise"),
        ("aten::add_", "elementwise"),
        ("aten::addmm", "other"),
        ("aten::_log_softmax", "other"),
        ("aten::empty", "other"),
    ],
)
def test_kind_of_an_operation(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_only_limits_models_and_batch_sizes() -> None:
    some = GPU.only(["resnet18"], [512])
    assert some.batches == {"resnet18": (512,)}
    assert some.stalled == {"resnet18": 256}
    assert some.epoch_models == ("resnet18",)
    assert CPU.only(None, None) == CPU == size_for(quick=False, gpu=False)
    assert size_for(quick=True, gpu=True).image_size == 32
