"""Running out of memory, for real, is an error that suggests a smaller batch."""

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

from minet.core.arrays import ceil_div
from minet.core.errors import InputError
from minet.core.settings import parse
from minet.train.config import TrainSettings
from minet.train.oom import oom_as_input_error
from tests.helpers.tree import ROOT

CPU = torch.device("cpu")
RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())["recipes"]["default"]
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: "


def _recipe(**changes: Any) -> TrainSettings:
    return parse(TrainSettings, RAW | changes)


def _message(error: Exception, world_size: int = 1, **changes: Any) -> str:
    """Return the message of a run that fails with an error."""
    recipe = _recipe(**changes)
    with pytest.raises(InputError) as raised, oom_as_input_error(recipe, world_size, CPU):
        raise error
    assert raised.value.__cause__ is error
    return str(raised.value)


# in its own process: torch and numpy ask for more than its limit
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
for allocate in (step, array, vector):
    try:
        with oom_as_input_error(recipe, 1, torch.device("cpu")):
            allocate()
    except InputError as error:
        (kind,) = [kind.__name__ for kind in kinds if isinstance(error.__cause__, kind)]
        print(allocate.__name__, kind)
        print(error, flush=True)
"""


def test_a_process_out_of_memory_gets_a_smaller_batch_suggested(root: Path) -> None:
    """A real step of 64 MB, a real array and a real vector, with 16 MB left."""
    recipe = _recipe(batch_size=512, accumulation_steps=2).model_dump_json()
    command = [sys.executable, "-c", PROGRAM, recipe]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # no threads, whose stacks would not fit
    done = subprocess.run(command, cwd=root, env=alone, capture_output=True, text=True, check=False)
    advice = (
        "this machine does not have enough memory for 256 images of 64 px at once "
        "(train.batch_size is 512, train.accumulation_steps 2); try train.accumulation_steps=4 "
        "(the same batch in smaller micro-batches) or train.batch_size=256"
    )
    causes = ("step RuntimeError", "array MemoryError", "vector RuntimeError")
    assert done.stdout.splitlines() == [line for cause in causes for line in (cause, advice)], (
        done.stderr
    )


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
def test_all_out_of_memory_errors_are_recognized(error: Exception) -> None:
    expected = "this machine does not have enough memory for 32 images of 64 px at once"
    assert _message(error).startswith(expected)


class OtherError(RuntimeError):
    """An error of another library."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (32x512 and 8192x10)"),
        RuntimeError("can't start new thread"),
        RuntimeError(),
        OtherError("broken"),
        InputError("cnn3: the training loss is nan"),
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, oom_as_input_error(_recipe(), 1, CPU):
        raise error
    assert raised.value is error
    assert raised.value.__cause__ is None


def test_code_that_succeeds_is_not_affected() -> None:
    with oom_as_input_error(_recipe(), 1, CPU):
        total = torch.ones(3).sum()
    assert total == 3


@pytest.mark.parametrize(
    ("world_size", "changes"),
    [
        (1, {"batch_size": 1}),
        (1, {"batch_size": 8, "accumulation_steps": 8}),
        (4, {"batch_size": 4}),
        (2, {"batch_size": 8, "accumulation_steps": 4}),
    ],
)
def test_for_one_image_no_smaller_batch_is_suggested(
    world_size: int, changes: dict[str, int]
) -> None:
    assert re.fullmatch(
        r"this machine does not have enough memory for 1 images? of 64 px at once; "
        r"try a smaller train\.input_px or model",
        _message(MemoryError(), world_size, **changes),
    )


@pytest.mark.parametrize(
    ("world_size", "changes", "images"),
    [
        (1, {"batch_size": 32}, 32),
        (1, {"batch_size": 32, "accumulation_steps": 3}, 11),
        (3, {"batch_size": 32}, 11),
        (2, {"batch_size": 33, "accumulation_steps": 4}, 5),
    ],
)
def test_the_message_has_the_images_of_one_forward_pass_of_one_process(
    world_size: int, changes: dict[str, int], images: int
) -> None:
    """The largest micro-batch of the rank with the most images."""
    assert f"for {images} images of 64 px at once" in _message(MemoryError(), world_size, **changes)


@given(
    batch_size=st.integers(1, 70),
    world_size=st.integers(1, 8),
    accumulation_steps=st.integers(1, 70),
)
def test_what_is_suggested_is_valid_and_smaller(
    batch_size: int, world_size: int, accumulation_steps: int
) -> None:
    """Each suggestion is a valid recipe with fewer images at once."""
    world_size = min(world_size, batch_size)
    accumulation_steps = min(accumulation_steps, batch_size)
    changes = {
        "batch_size": batch_size,
        "accumulation_steps": accumulation_steps,
        "processes": world_size,
    }
    message = _message(MemoryError(), world_size, **changes)

    def at_once(batch_size: int, accumulation_steps: int) -> int:
        return ceil_div(len(range(0, batch_size, world_size)), accumulation_steps)

    tried = at_once(batch_size, accumulation_steps)
    for name, value in re.findall(r"train\.(accumulation_steps|batch_size)=(\d+)", message):
        try:
            other = _recipe(**changes | {name: int(value)})
        except ValidationError as error:
            pytest.fail(f"{changes}: train.{name}={value} is rejected: {error}")
        assert at_once(other.batch_size, other.accumulation_steps) < tried, f"{changes}: {message}"


@pytest.mark.gpu
def test_a_gpu_out_of_memory_is_named() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    with pytest.raises(InputError) as raised, oom_as_input_error(_recipe(), 1, device):
        torch.empty(2**50, dtype=torch.uint8, device=device)
    name = torch.cuda.get_device_name(device)
    expected = f"{name} does not have enough memory for 32 images of 64 px at once"
    assert str(raised.value).startswith(expected)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
