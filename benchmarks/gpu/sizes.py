"""Amount of work of each part: a full run on a GPU, or a rehearsal of minutes on a CPU."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """Amount of work; what comes first is worth most, and is measured first."""

    limits_s: Mapping[str, float]  # by part, in order of value; they sum to a run's time
    image_size: int
    photos: int  # different ones, of which all betons are made
    images: int  # of a beton
    val_images: int
    epoch_images: int  # of the end-to-end run: rows of a beton's table, which repeats its images
    loader_images: int  # likewise
    epochs: int
    model: str
    batch_size: int
    models: tuple[tuple[str, int], ...]  # with batch sizes
    ratio_batch_size: int  # at which dynamic is compared with static
    batch_sizes: tuple[int, ...]  # of the sweep
    form_batch_sizes: tuple[int, ...]
    form_image_size: int  # of the network whose convolutions are timed, one by one
    rounds: int
    warm_up: int  # steps that are not timed
    repeats: int
    steps: int  # per repeat
    product_side: int  # of the matrices whose product measures the ceiling
    copy_bytes: int

    def record(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


STATIC, DYNAMIC = "resnet18", "dynamic_resnet18"
FULL = Size(
    limits_s={
        "images": 35,
        "environment": 20,
        "end_to_end": 115,
        "loops": 110,
        "models": 80,
        "loaders": 35,
        "tests": 95,
        "profile": 25,
        "sweep": 25,
    },
    image_size=224,
    photos=64,
    images=4096,
    val_images=512,
    epoch_images=63_325,
    loader_images=16_384,
    epochs=4,
    model=STATIC,
    batch_size=512,
    models=(
        (STATIC, 256),
        (DYNAMIC, 256),
        ("resnet50", 256),
        ("rrdb", 256),
        (DYNAMIC, 512),
        ("resnet50", 512),
        ("rrdb", 512),
        (DYNAMIC, 1024),
        ("resnet50", 1024),
        ("rrdb", 1024),
    ),
    ratio_batch_size=256,
    batch_sizes=(1024, 128),
    form_batch_sizes=(256, 64),
    form_image_size=224,
    rounds=2,
    warm_up=10,
    repeats=3,
    steps=20,
    product_side=8192,
    copy_bytes=4 << 30,
)
QUICK = Size(
    limits_s={
        "images": 12,
        "environment": 8,
        "end_to_end": 20,
        "loops": 36,
        "models": 10,
        "loaders": 13,
        "tests": 40,
        "profile": 27,
        "sweep": 14,
    },
    image_size=32,
    photos=4,
    images=24,
    val_images=4,
    epoch_images=30,
    loader_images=16,
    epochs=2,
    model=STATIC,
    batch_size=4,
    models=((STATIC, 2), (DYNAMIC, 2), ("resnet50", 2), ("rrdb", 2)),
    ratio_batch_size=2,
    batch_sizes=(2,),
    form_batch_sizes=(2,),
    form_image_size=32,
    rounds=1,
    warm_up=1,
    repeats=2,
    steps=1,
    product_side=256,
    copy_bytes=1 << 20,
)


def size_for(*, quick: bool) -> Size:
    """Return the size of a full run, or of a rehearsal."""
    return QUICK if quick else FULL
