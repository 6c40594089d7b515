"""Running out of memory: for real, told with what was tried and something smaller to try."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from minet.core.errors import InputError
from minet.core.settings import parse
from minet.train.config import TrainSettings
from minet.train.oom import oom_as_input_error
from tests.helpers.tree import ROOT

CPU = torch.device("cpu")
RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: "


def _recipe(**changes: Any) -> TrainSettings:
    return parse(TrainSettings, RAW | changes)


def _told(error: Exception, ranks: int = 1, **changes: Any) -> str:
    """Give what a run is told that fails with an error."""
    with pytest.raises(InputError) as told, oom_as_input_error(_recipe(**changes), ranks, CPU):
        raise error
    assert told.value.__cause__ is error
    return str(told.value)


# in a process of its own: torch and numpy ask for more than the process may have
PROGRAM = """
import re, resource, sys, numpy, torch
from pathlib import Path
from minet.core.errors import InputError
from minet.train.oom import oom_as_input_error
from minet.train.config import TrainSettings

recipe = TrainSettings.model_validate_json(sys.argv[1])
torch.set_num_threads(1)
kinds = (MemoryError, RuntimeError)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())

def step():
    model(torch.zeros(recipe.batch_size, 3, 64, 64)).sum().backward()

def array():
    numpy.ones((recipe.batch_size, 3, 512, 512))

def vector():  # of C++, whose std::bad_alloc torch turns into a RuntimeError
    torch.zeros(1).expand(10**8, 1).unbind()

model(torch.zeros(2, 3, 64, 64)).sum().backward()
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, resource.RLIM_INFINITY))
try:
    with oom_as_input_error(recipe, 1, torch.device("cpu")):
        {"step": step, "array": array, "vector": vector}[sys.argv[2]]()
except InputError as error:
    (kind,) = [kind.__name__ for kind in kinds if isinstance(error.__cause__, kind)]
    print(kind)
    print(error, flush=True)
"""


@pytest.mark.parametrize(
    ("what", "cause"),
    [("step", "RuntimeError"), ("array", "MemoryError"), ("vector", "RuntimeError")],
)
def test_a_process_that_has_no_more_memory_is_told_what_to_try(
    root: Path, what: str, cause: str
) -> None:
    """A real step of 64 MB, a real array and a real vector, where 16 MB are left."""
    recipe = _recipe(batch_size=512, accumulation_steps=2).model_dump_json()
    command = [sys.executable, "-c", PROGRAM, recipe, what]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # no threads whose stacks would find no room
    done = subprocess.run(command, cwd=root, env=alone, capture_output=True, text=True, check=False)
    advice = (
        "this machine has not the memory for 256 images of 64 px at once (train.batch_size is 512, "
        "train.accumulation_steps 2); try train.accumulation_steps=4 (the same steps, in parts) or "
        "train.batch_size=256"
    )
    assert done.stdout.splitlines() == [cause, advice], done.stderr


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"{ALLOCATOR}can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError(f"{ALLOCATOR}not enough memory: you tried to allocate 9 bytes."),
        MemoryError(),
        MemoryError("std::bad_alloc"),
        RuntimeError("std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
    ids=repr,
)
def test_all_ways_to_run_out_of_memory_are_known(error: Exception) -> None:
    assert _told(error).startswith("this machine has not the memory for 32 images of 64 px at once")


class Unlike(RuntimeError):
    """Another library's kind of error."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (32x512 and 8192x10)"),
        RuntimeError("can't start new thread"),
        RuntimeError(),
        Unlike("broken"),
        InputError("cnn3: the training loss is nan"),
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed, oom_as_input_error(_recipe(), 1, CPU):
        raise error
    assert passed.value is error
    assert passed.value.__cause__ is None


def test_what_goes_well_is_left_alone() -> None:
    with oom_as_input_error(_recipe(), 1, CPU):
        found = torch.ones(3).sum()
    assert found == 3


@pytest.mark.parametrize(
    ("ranks", "changes"),
    [
        (1, {"batch_size": 1}),
        (1, {"batch_size": 8, "accumulation_steps": 8}),
        (4, {"batch_size": 4}),
        (2, {"batch_size": 8, "accumulation_steps": 4}),
    ],
)
def test_of_one_image_no_smaller_batch_is_asked(ranks: int, changes: dict[str, int]) -> None:
    assert re.fullmatch(
        r"this machine has not the memory for 1 images? of 64 px at once; "
        r"try a smaller train\.input_px or model",
        _told(MemoryError(), ranks, **changes),
    )


@pytest.mark.parametrize(
    ("ranks", "changes", "images"),
    [
        (1, {"batch_size": 32}, 32),
        (1, {"batch_size": 32, "accumulation_steps": 3}, 11),
        (3, {"batch_size": 32}, 11),
        (2, {"batch_size": 33, "accumulation_steps": 4}, 5),
    ],
)
def test_what_was_tried_is_what_one_process_had_at_once(
    ranks: int, changes: dict[str, int], images: int
) -> None:
    """The largest share of a rank, in the largest of its parts."""
    assert f"for {images} images of 64 px at once" in _told(MemoryError(), ranks, **changes)


@given(
    batch_size=st.integers(1, 70), ranks=st.integers(1, 8), accumulation_steps=st.integers(1, 70)
)
def test_what_is_to_be_tried_is_allowed_and_smaller(
    batch_size: int, ranks: int, accumulation_steps: int
) -> None:
    """Each suggestion, put in as it is written, is a valid recipe with fewer images at once."""
    ranks, accumulation_steps = min(ranks, batch_size), min(accumulation_steps, batch_size)
    changes = {
        "batch_size": batch_size,
        "accumulation_steps": accumulation_steps,
        "processes": ranks,
    }
    message = _told(MemoryError(), ranks, **changes)

    def at_once(batch_size: int, accumulation_steps: int) -> int:
        own = len(range(0, batch_size, ranks))
        return -(-own // accumulation_steps)

    tried = at_once(batch_size, accumulation_steps)
    for name, value in re.findall(r"train\.(accumulation_steps|batch_size)=(\d+)", message):
        try:
            other = _recipe(**changes | {name: int(value)})
        except ValidationError as error:
            pytest.fail(f"{changes}: train.{name}={value} is refused: {error}")
        assert at_once(other.batch_size, other.accumulation_steps) < tried, f"{changes}: {message}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_that_has_no_more_memory_is_named() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    with pytest.raises(InputError) as told, oom_as_input_error(_recipe(), 1, device):
        torch.empty(2**50, dtype=torch.uint8, device=device)
    name = torch.cuda.get_device_name(device)
    assert str(told.value).startswith(f"{name} has not the memory for 32 images of 64 px at once")
    assert isinstance(told.value.__cause__, torch.OutOfMemoryError)
