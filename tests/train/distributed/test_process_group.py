"""Several processes train as one; they stop together, and resume with another number."""

import os
import shutil
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
from minet.train.distributed.process_group import ProcessGroup, StepRequest, StopConsensus
from minet.train.distributed.sync_batch_norm import SyncBatchNorm, convert_sync_batchnorm
from tests.helpers.fork_server import ForkServer
from tests.helpers.tiny_run import ROOT, TinyRun, make_data, run_settings

# short steps: long ones double the rounding of sums every few steps, and Adam divides by it
SGD = {"optimizer": "sgd", "lr": 0.003}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny data set."""
    folder = tmp_path_factory.mktemp("tiny")
    make_data(folder)
    return folder


@pytest.fixture
def tiny(data: Path, tmp_path: Path) -> Callable[..., TinyRun]:
    """Return a function that makes runs, each in its own folder."""

    def make(name: str, model: str = "cnn3", **changes: Any) -> TinyRun:
        return TinyRun(data, tmp_path / name, run_settings(model, **SGD | changes))

    return make


def assert_close(one: TinyRun, other: TinyRun, tolerance: float = 1e-5) -> None:
    """Assert that losses and weights are the same except for the rounding of sums."""
    assert np.abs(one.history()[:, [1, 3]] - other.history()[:, [1, 3]]).max() < tolerance
    actual, expected = (load_file(run.out / "model.safetensors") for run in (one, other))
    assert actual.keys() == expected.keys()
    for name, weights in expected.items():
        limit = 10 * tolerance * max(1.0, weights.abs().max().item())
        assert (actual[name].double() - weights.double()).abs().max().item() < limit, name


MIXED = {
    "accumulation_steps": 2,
    "ema_decay": 0.9,
    "max_grad_norm": 0.5,
    "augment": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "channel_dropout": 0.3},
    "compat": {"shuffle_validation": 0.5},
}


TWO_CHANNELS = {
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
        ("cnn3", TWO_CHANNELS),
    ],
    ids=[
        "no norm",
        "batch norm, one image left for two or three ranks",
        "mixed, in micro-batches, some channels dropped and those of validation shuffled",
        "two channels, one image left, validated on crops",
    ],
)
def test_two_and_three_processes_train_as_one(
    tiny: Callable[..., TinyRun], forked: ForkServer, model: str, changes: dict[str, Any]
) -> None:
    """Ranks as torchrun starts them; `minet.train.distributed.launcher` starts those below."""
    alone = tiny("1", model, **changes)
    output = forked.finish(alone)
    assert "1 process of 1 thread," in output
    for processes in (2, 3):
        shared = tiny(str(processes), model, processes=processes, **changes)
        output = forked.finish(shared, processes=processes)
        assert f"{processes} processes of" in output
        assert output.count("epoch 0 (1 of 3)") == 1, "more than one process prints"
        assert_close(shared, alone)
        assert shared.record("speed")["processes"] == processes


def test_the_threads_of_the_settings_override_the_environment(
    tiny: Callable[..., TinyRun], forked: ForkServer
) -> None:
    run = tiny("r", processes=2, threads=2, epochs=1)
    output = forked.finish(run, processes=2)  # with OMP_NUM_THREADS=1
    assert "2 processes of 2 threads," in output
    assert run.record("speed")["threads"] == 2


def children(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a process has started."""
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in file.read_text().split()]


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


LONG = {"epochs": 1000, "save_every_s": 0.05}


def test_a_killed_rank_ends_the_run_with_its_rank_and_fewer_can_resume_it(
    tiny: Callable[..., TinyRun],
) -> None:
    run = tiny("r", processes=3, **LONG)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        victim = children(process)[1]
        os.kill(victim, signal.SIGKILL)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    expected = f"rank 1 of 3 (process {victim}) was killed by SIGKILL; the next run resumes"
    assert f"error: {expected}" in output
    (run.out / "history.csv").unlink()
    run.settings["train"]["processes"] = 2
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 75, output
    assert "resumed at epoch" in output


UNSAVED = {"epochs": 30, "save_every_s": 1000.0}


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Return a run with three processes that SIGTERM has stopped."""
    settings = run_settings("cnn3", **SGD | UNSAVED, processes=3)
    run = TinyRun(data, tmp_path_factory.mktemp("stopped") / "r", settings)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 75, output
    assert output.count("stopped by SIGTERM and saved; `dvc repro` resumes from there") == 1
    return run


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, tmp_path_factory: pytest.TempPathFactory, forked: ForkServer
) -> TinyRun:
    """Return the same run with one process, which nothing has stopped."""
    settings = run_settings("cnn3", **SGD | UNSAVED)
    run = TinyRun(data, tmp_path_factory.mktemp("undisturbed") / "r", settings)
    forked.finish(run)
    return run


@pytest.mark.parametrize("others", [1, 2])
def test_a_run_stopped_with_three_processes_resumes_with_fewer_as_if_it_had_been_one(
    tiny: Callable[..., TinyRun], stopped: TinyRun, undisturbed: TinyRun, others: int
) -> None:
    run = tiny("r", processes=others, **UNSAVED)
    shutil.copytree(stopped.out, run.out)
    output = run.finish()
    assert "resumed at epoch" in output
    assert_close(run, undisturbed, 1e-4)


def test_an_error_of_all_ranks_is_reported_once(tiny: Callable[..., TinyRun]) -> None:
    run = tiny("r", processes=2, lr=1e30)
    output = run.finish(code=1)
    assert "Traceback" not in output
    assert output.count("the training loss is") == 1
    assert "error: rank 0 of 2 (process" in output or "error: rank 1 of 2 (process" in output


def test_no_process_outlives_its_launcher(tiny: Callable[..., TinyRun]) -> None:
    run = tiny("r", processes=2, **LONG)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        ranks = children(process)
        assert len(ranks) == 2
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks))


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return int(server.getsockname()[1])


def test_two_machines_train_as_one_process(
    tiny: Callable[..., TinyRun], forked: ForkServer
) -> None:
    """Two of torch's own launchers with a common endpoint, as on two machines."""
    alone, shared = tiny("1"), tiny("2")
    forked.finish(alone)
    torchrun = (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=tiny"),
    )
    # torchrun's own -m makes it run a module
    with shared.running(*torchrun) as first, shared.running(*torchrun) as second:
        outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert "2 processes of" in "".join(outputs)
    assert_close(shared, alone)


def test_a_second_run_of_the_same_settings_is_rejected_with_the_pid_of_the_first(
    tiny: Callable[..., TinyRun], forked: ForkServer
) -> None:
    run = tiny("r", **LONG)
    with run.running() as process:
        wait_until((run.out / "history.csv").exists)
        output = forked.finish(run, code=1)
    assert f"error: process {process.pid} is training the same settings on the same data" in output


NORMS = """
import sys, torch, torch.distributed as dist
from torch import nn
from minet.train.distributed.sync_batch_norm import SyncBatchNorm, convert_sync_batchnorm
rank, world_size, file, channels = int(sys.argv[1]), 3, sys.argv[2], 5
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world_size)
torch.manual_seed(0)
images, target = torch.randn(7, channels, 4, 3) * 3 + 100, torch.randn(7, channels, 4, 3)
whole, synced = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
for norm in (whole, synced):
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, channels + 1)); norm.bias.fill_(0.3)
synced = SyncBatchNorm(synced)
# rank 0 has 4 images, rank 1 three, rank 2 only one of padding
own = {0: slice(0, 7, 2), 1: slice(1, 7, 2), 2: None}[rank]
synced.is_padding = own is None
part = torch.randn(1, channels, 4, 3) if own is None else images[own].clone()
part.requires_grad_()
images.requires_grad_()
for _ in range(2):
    expected = whole(images); actual = synced(part)
(expected * target).sum().backward()
if own is None:
    (actual.sum() * 0).backward()
    assert (part.grad == 0).all()
else:
    (actual * target[own]).sum().backward()
    assert torch.allclose(actual, expected[own], atol=1e-4), (actual - expected[own]).abs().max()
    assert torch.allclose(part.grad, images.grad[own], atol=1e-4)
for ours, torchs in ((synced.weight, whole.weight), (synced.bias, whole.bias)):
    dist.all_reduce(ours.grad)
    assert torch.allclose(ours.grad, torchs.grad, rtol=1e-4, atol=1e-3)
buffers = dict(synced.named_buffers())
for name, buffer in whole.named_buffers():
    assert torch.allclose(buffers[name].float(), buffer.float(), rtol=1e-5), name
whole.eval(); synced.eval()
assert torch.allclose(synced(images), whole(images), atol=1e-4)
"""


def test_a_synchronized_norm_equals_torchs_norm_of_the_images_of_all_ranks(tmp_path: Path) -> None:
    """Outputs, gradients and running statistics, one rank without images."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", NORMS, str(rank), str(tmp_path / "store")],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    errors = [process.communicate(timeout=60)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0, 0], errors


def test_a_dry_run_of_one_pixel_fails_as_with_torchs_norm() -> None:
    norm = SyncBatchNorm(torch.nn.BatchNorm2d(3)).to("meta")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.empty(1, 3, 1, 1, device="meta"))
    assert norm(torch.empty(2, 3, 1, 1, device="meta")).shape == (2, 3, 1, 1)


def test_converted_norms_keep_names_and_weights(raw_params: dict[str, Any]) -> None:
    """The weights of a run of several processes load into the model as built."""
    torch.manual_seed(0)
    model = build("resnet18", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert len(convert_sync_batchnorm(model)) == 20
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_ranks_exchange_requests_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of 0.1 s: after 1, 2, 4 and 8 steps, then after every 9, just under a second."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
    consensus, exchanges = StopConsensus(ProcessGroup(world_size=2)), []
    for step in range(1, 41):
        now += 0.1001
        request = consensus.after_step(StepRequest(stop_signal=signal.SIGTERM))
        if request.stop_signal:
            exchanges.append(step)
    assert exchanges == [1, 3, 7, 15, 24, 33]
    assert consensus.now(StepRequest(save=True)) == StepRequest(save=True)


def test_a_single_process_follows_its_request_after_every_step() -> None:
    consensus = StopConsensus(ProcessGroup())
    for request in (StepRequest(), StepRequest(save=True), StepRequest(stop_signal=15)) * 2:
        assert consensus.after_step(request) == request
        assert consensus.now(request) == request


def test_a_request_of_one_rank_is_met_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(buffer: torch.Tensor, *_: Any, **__: Any) -> None:
        buffer.copy_(torch.maximum(buffer, torch.tensor([1.0, signal.SIGINT, 0.5]).double()))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    consensus = StopConsensus(ProcessGroup(rank=1, world_size=2))
    expected = StepRequest(save=True, stop_signal=signal.SIGINT)
    assert consensus.after_step(StepRequest()) == expected
