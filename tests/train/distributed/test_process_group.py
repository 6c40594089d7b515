"""Several processes: the same batches, sums and norms as one; told ends; resumed with others."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minet.models.registry import build
from minet.train.distributed.sync_batch_norm import SyncBatchNorm, convert_sync_batchnorm
from tests.helpers.tiny_run import ROOT, TinyRun, make_data, run_settings

# gentle steps: long ones double the rounding of sums each few steps, and Adam divides by it
SGD = {"optimizer": "sgd", "lr": 0.003}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tiny data set."""
    folder = tmp_path_factory.mktemp("tiny")
    make_data(folder)
    return folder


@pytest.fixture
def tiny(data: Path, tmp_path: Path) -> Callable[..., TinyRun]:
    """Give a way to make runs, each in a folder of its own."""

    def make(name: str, model: str = "cnn3", **changes: Any) -> TinyRun:
        return TinyRun(data, tmp_path / name, run_settings(model, **SGD | changes))

    return make


def assert_close(one: TinyRun, other: TinyRun, tolerance: float = 1e-5) -> None:
    """Losses and weights are the same but for the rounding of sums."""
    assert np.abs(one.history()[:, [1, 3]] - other.history()[:, [1, 3]]).max() < tolerance
    found, expected = (load_file(run.out / "model.safetensors") for run in (one, other))
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        most = 10 * tolerance * max(1.0, weights.abs().max().item())
        assert (found[name].double() - weights.double()).abs().max().item() < most, name


MIXED = {
    "accumulation_steps": 2,
    "ema_decay": 0.9,
    "max_grad_norm": 0.5,
    "augment": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "channel_dropout": 0.3},
    "compat": {"shuffle_validation": 0.5},
}


TWO_PLANES = {
    "channels": "GB",
    "channel_mode": "slice",
    "arguments": {"channels": 2},
    "batch_size": 37,
    "compat": {"random_test_crop": True},
}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("cnn3", {}),
        ("rrdb", {"batch_size": 37}),
        ("rrdb", MIXED),
        ("cnn3", TWO_PLANES),
    ],
    ids=[
        "no norm",
        "batch norm, one image left for two or three ranks",
        "mixed, in parts, some planes dropped and those of validation shuffled",
        "two planes, one image left, validated on crops",
    ],
)
def test_two_and_three_processes_train_as_one(
    tiny: Callable[..., TinyRun], model: str, changes: dict[str, Any]
) -> None:
    alone = tiny("1", model, **changes)
    said = alone.finish()
    assert "1 process of 1 thread," in said
    for processes in (2, 3):
        shared = tiny(str(processes), model, processes=processes, **changes)
        said = shared.finish()
        assert f"{processes} processes of" in said
        assert said.count("epoch 0 (1 of 3)") == 1, "more than one process speaks"
        assert_close(shared, alone)
        assert shared.record("speed")["processes"] == processes


def test_threads_are_as_the_settings_say_whatever_the_environment(
    tiny: Callable[..., TinyRun],
) -> None:
    run = tiny("r", processes=2, threads=2, epochs=1)
    assert "2 processes of 2 threads," in run.finish()  # which sets OMP_NUM_THREADS to 1
    assert run.record("speed")["threads"] == 2


def children(process: subprocess.Popen[str]) -> list[int]:
    """Processes that a process has started."""
    place = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in place.read_text().split()]


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


LONG = {"epochs": 1000, "save_every_s": 0.05}


def test_a_killed_rank_ends_the_run_with_its_name_and_others_take_it_up(
    tiny: Callable[..., TinyRun],
) -> None:
    run = tiny("r", processes=3, **LONG)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        victim = children(process)[1]
        os.kill(victim, signal.SIGKILL)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    expected = f"rank 1 of 3 (process {victim}) was killed by SIGKILL; the next run goes on"
    assert f"error: {expected}" in said
    (run.out / "history.csv").unlink()
    run.settings["train"]["processes"] = 2
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 75, said
    assert "resumed at epoch" in said


@pytest.mark.parametrize("others", [1, 2])
def test_a_run_stopped_with_three_processes_goes_on_with_fewer_as_if_it_had_been_one(
    tiny: Callable[..., TinyRun], others: int
) -> None:
    many = {"epochs": 30, "save_every_s": 1000.0}
    run = tiny("r", processes=3, **many)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 75, said
    assert said.count("stopped by SIGTERM and saved; `dvc repro` resumes from there") == 1
    run.settings["train"]["processes"] = others
    said = run.finish()
    assert "resumed at epoch" in said
    alone = tiny("alone", **many)
    alone.finish()
    assert_close(run, alone, 1e-4)


def test_a_mistake_that_all_ranks_see_is_told_once(tiny: Callable[..., TinyRun]) -> None:
    run = tiny("r", processes=2, lr=1e30)
    said = run.finish(code=1)
    assert "Traceback" not in said
    assert said.count("the training loss is") == 1
    assert "error: rank 0 of 2 (process" in said or "error: rank 1 of 2 (process" in said


def test_no_process_outlives_its_launcher(tiny: Callable[..., TinyRun]) -> None:
    run = tiny("r", processes=2, **LONG)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        ranks = children(process)
        assert len(ranks) == 2
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks))


def free_port() -> int:
    """Give a port that nobody uses."""
    with socket.socket() as place:
        place.bind(("localhost", 0))
        return int(place.getsockname()[1])


def test_two_machines_train_as_one_process(tiny: Callable[..., TinyRun]) -> None:
    """Two of torch's own launchers that meet at a port, as on two machines."""
    alone, shared = tiny("1"), tiny("2")
    alone.finish()
    torchrun = (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=tiny"),
    )
    # torchrun's own -m makes it run a module
    with shared.running(*torchrun) as first, shared.running(*torchrun) as second:
        said = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "2 processes of" in "".join(said)
    assert_close(shared, alone)


def test_a_second_run_of_the_same_settings_is_told_which_process_is_first(
    tiny: Callable[..., TinyRun],
) -> None:
    run = tiny("r", **LONG)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        said = run.finish(code=1)
    assert f"error: process {process.pid} is training the same settings on the same data" in said


NORMS = """
import sys, torch, torch.distributed as dist
from torch import nn
from minet.train.distributed.sync_batch_norm import SyncBatchNorm, convert_sync_batchnorm
rank, ranks, file, planes = int(sys.argv[1]), 3, sys.argv[2], 5
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
torch.manual_seed(0)
images, target = torch.randn(7, planes, 4, 3) * 3 + 100, torch.randn(7, planes, 4, 3)
whole, shared = nn.BatchNorm2d(planes), nn.BatchNorm2d(planes)
for norm in (whole, shared):
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, planes + 1)); norm.bias.fill_(0.3)
shared = SyncBatchNorm(shared)
# rank 0 has 4 images, rank 1 three, rank 2 none but a black one that counts for nothing
own = {0: slice(0, 7, 2), 1: slice(1, 7, 2), 2: None}[rank]
shared.idle = own is None
part = torch.zeros(1, planes, 4, 3) if own is None else images[own].clone()
part.requires_grad_()
images.requires_grad_()
for _ in range(2):
    expected = whole(images); found = shared(part)
(expected * target).sum().backward()
if own is None:
    (found.sum() * 0).backward()
    assert (part.grad == 0).all()
else:
    (found * target[own]).sum().backward()
    assert torch.allclose(found, expected[own], atol=1e-4), (found - expected[own]).abs().max()
    assert torch.allclose(part.grad, images.grad[own], atol=1e-4)
for mine, theirs in ((shared.weight, whole.weight), (shared.bias, whole.bias)):
    dist.all_reduce(mine.grad)
    assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3)
buffers = dict(shared.named_buffers())
for name, buffer in whole.named_buffers():
    assert torch.allclose(buffers[name].float(), buffer.float(), rtol=1e-5), name
whole.eval(); shared.eval()
assert torch.allclose(shared(images), whole(images), atol=1e-4)
"""


def test_a_shared_norm_is_torchs_over_the_images_of_all_ranks(tmp_path: Path) -> None:
    """Outputs, gradients and running statistics, one rank without images."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", NORMS, str(rank), str(tmp_path / "store")],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    said = [process.communicate(timeout=60)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0, 0], said


def test_a_trial_of_one_pixel_is_refused_as_torchs_norm_refuses_it() -> None:
    norm = SyncBatchNorm(torch.nn.BatchNorm2d(3)).to("meta")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.empty(1, 3, 1, 1, device="meta"))
    assert norm(torch.empty(2, 3, 1, 1, device="meta")).shape == (2, 3, 1, 1)


def test_shared_norms_take_over_names_and_weights(raw_params: dict[str, Any]) -> None:
    """What is saved of a shared run loads into the model alone."""
    torch.manual_seed(0)
    model = build("resnet18", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert len(convert_sync_batchnorm(model)) == 20
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
