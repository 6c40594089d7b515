"""The benchmark of the training step: all train, the same way, and the page shows the records."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from benchmarks import pages
from benchmarks.data.turns import FailedError
from benchmarks.train import turns
from benchmarks.train.competitors import COMPETITORS
from benchmarks.train.job import Clock, Job, in_turn, ready_batches, recipe_of, stored_batches
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
    """Tiny operations wait longer for a second thread than they take."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def losses(folder, name: str, job: Job) -> list[float]:
    return turns.ask(folder, "loops", 300.0, name=name, job=job.record())["losses"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[float]:
    """Give the losses of torchvision's loop, step by step."""
    return losses(tmp_path_factory.mktemp("plain"), "torchvision", TINY)


@pytest.mark.parametrize("name", ["minet", "timm", "Lightning"])
def test_all_follow_the_same_losses_with_plain_sgd(name: str, expected, tmp_path) -> None:
    """The same weights, the same batches, float32: whoever is faster must not train less."""
    if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed here; `make bench-train` brings it")
    found = losses(tmp_path, name, TINY)
    assert len(found) == len(expected) == TINY.all_steps == 7
    assert found == pytest.approx(expected, abs=1e-3)
    assert expected[-1] < expected[0] - 0.02


def run_trial(out, *flags: str) -> dict:
    """Run a trial with one small model; give its record."""
    command = [sys.executable, "-m", "benchmarks.train", "--quick", "--models", "rrdb"]
    command += ["--out", str(out), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.json")
    return read_json(path)


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> dict:
    """Give the record of the usual parts."""
    return run_trial(tmp_path_factory.mktemp("trial"))


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the trial is one of a CPU")


@needs_no_gpu
def test_every_part_of_a_trial_is_measured(trial) -> None:
    loops = trial["loops"]["rrdb, batch 4"]["competitors"]
    assert list(loops) == [name for name, one in COMPETITORS.items() if not one.gpu_only]
    for name, found in loops.items():
        if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
            assert found["failed"] == f"ModuleNotFoundError: No module named '{PEERS[name]}'"
            continue
        assert len(found["images_per_s"]) == 2, name
        assert min(found["images_per_s"]) > 0, name
        assert found["loss_last"] < found["loss_first"], name
    stall = trial["stall"]["rrdb"]
    assert {name: len(rates) for name, rates in stall["images_per_s"].items()} == {
        "memory": 2,
        "stream": 2,
        "resident": 2,
    }
    mfu = trial["mfu"]["rrdb"]
    assert mfu["step_flops"] == 6 * mfu["forward_macs"]
    assert mfu["peak_flops_per_s"] == max(map(max, mfu["measured_flops_per_s"].values()))
    trace = trial["trace"]["rrdb"]["ms_by_kind"]
    assert min(trace[kind] for kind in ("convolution", "batch norm", "augmentation")) > 0
    assert trial["machine"]["device"] == "cpu"
    assert trial["settings"]["quick"]


@needs_no_gpu
def test_the_tables_of_a_trial_can_be_drawn(trial) -> None:
    found = tables("train-cpu", trial)
    assert list(found) == [f"train-cpu {part}" for part in ("loops", "stall", "mfu", "trace")]
    for text in found.values():
        columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
        assert len(columns) == 1


@pytest.mark.slow
@needs_no_gpu
def test_every_model_can_be_trained_for_its_speed(tmp_path) -> None:
    record = run_trial(tmp_path, "--parts", "epochs")
    assert record["epochs"]["rrdb"]["epoch_s_median"] > 0
    text = tables("train-epochs-cpu", record)["train-epochs-cpu epochs"]
    assert text.splitlines()[2].startswith("| `rrdb` | 64 |")


def test_the_page_shows_the_records_that_there_are() -> None:
    page = (ROOT / pages.PAGE).read_text()
    found = {name: text for name, text in pages.tables(ROOT).items() if name.startswith("train")}
    for name, text in found.items():
        assert f"<!-- {name} -->\n{text}\n<!-- /{name} -->" in page
    for part in ("loops", "stall", "mfu", "trace"):
        assert page.count(f"<!-- train-cpu {part} -->\n") == 1
    assert page.count("<!-- train-epochs-cpu epochs -->\n") == 1


def test_a_table_of_loops_compares_with_the_fastest_peer_and_says_what_failed() -> None:
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


def test_the_clock_counts_whole_repeats_after_the_warm_up() -> None:
    clock = Clock(TINY, CPU_DEVICE)
    for step in range(TINY.all_steps):
        clock.step_ended(torch.tensor(float(step)))
    assert len(clock.seconds()) == TINY.repeats
    assert min(clock.seconds()) >= 0
    assert clock.losses() == [0, 1, 2, 3, 4, 5, 6]


def test_all_see_the_same_images() -> None:
    stored = stored_batches(TINY, CPU_DEVICE)
    again = ready_batches(TINY, CPU_DEVICE, torch.contiguous_format)
    ready = ready_batches(TINY, CPU_DEVICE, torch.channels_last)
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
    steps = [images for images, _ in in_turn(stored, 5)]
    assert steps[3] is stored[0][0]
    assert steps[4] is stored[1][0]


def test_only_the_augmented_recipe_changes_images() -> None:
    plain, augmented = (recipe_of(TINY, augmented=kind) for kind in (False, True))
    assert (plain.augment.flip, plain.augment.crop_scale) == (0.0, (1.0, 1.0))
    assert augmented.augment.flip > 0
    assert augmented.augment.crop_scale != (1.0, 1.0)
    assert plain.model_copy(update={"augment": augmented.augment}) == augmented


def test_who_fails_takes_no_further_turn(monkeypatch, tmp_path) -> None:
    asked = []

    def ask(folder, part, timeout_s, *, name, job) -> dict:
        asked.append(name)
        if name == "timm":
            raise FailedError("why")
        return {"images": 6, "seconds": [2.0, 3.0], "losses": [2.0, 1.5, 1.0]}

    monkeypatch.setattr(turns, "ask", ask)
    found = turns.by_turns(tmp_path, ("minet", "timm"), TINY, rounds=2, timeout_s=1.0)
    assert asked == ["minet", "timm", "minet"]
    assert found["timm"] == {"failed": "why"}
    assert found["minet"] == {"images_per_s": [3, 2, 3, 2], "loss_first": 2.0, "loss_last": 1.0}


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
def test_operations_are_of_a_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_sizes_leave_out_what_is_not_asked_for() -> None:
    some = GPU.only(["resnet18"], [512])
    assert some.batches == {"resnet18": (512,)}
    assert some.stalled == {"resnet18": 256}
    assert some.epoch_models == ("resnet18",)
    assert CPU.only(None, None) == CPU == size_for(quick=False, gpu=False)
    assert size_for(quick=True, gpu=True).image_size == 32
