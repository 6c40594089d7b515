"""Amount of work: a full run on a CPU or a GPU, or a smoke test."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.train.job import Job
from minet.models.registry import MODELS


@dataclass(frozen=True)
class Size:
    """Amount of work of each part; batches are batch sizes."""

    image_size: int
    batches: Mapping[str, tuple[int, ...]]  # of the loops, by model
    rounds: int  # each runs every loop once
    warm_up: int  # steps that are not timed, per process
    repeats: int  # per process
    steps: int  # per repeat
    stalled: Mapping[str, int]  # batch size by model of stall
    stall_images: int  # per epoch
    stall_rounds: int
    counted: Mapping[str, int]  # batch size by model of mfu and trace
    product_side: int  # of the square matrices whose product measures the peak
    timeout_s: float  # of one process
    epoch_models: tuple[str, ...] = tuple(MODELS)
    epochs: int = 2
    epoch_images: int | None = None  # None: as in params.yaml
    different: int = field(default=2, kw_only=True)  # number of batches, used cyclically

    def job(self, model: str, batch_size: int, **changes: Any) -> Job:
        """Return the job of a model at a batch size."""
        defaults = {"warm_up": self.warm_up, "repeats": self.repeats, "steps": self.steps}
        return Job(model, batch_size, self.image_size, self.different, **{**defaults, **changes})

    def record(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)

    def only(self, models: Collection[str] | None, batches: Collection[int] | None) -> "Size":
        """Return the size limited to some models and batch sizes of the loops; None: all."""
        chosen = self
        if models is not None:
            limited: dict[str, Any] = {
                name: {
                    model: batch for model, batch in getattr(self, name).items() if model in models
                }
                for name in ("batches", "stalled", "counted")
            }
            epoch_models = tuple(model for model in self.epoch_models if model in models)
            chosen = replace(self, **limited, epoch_models=epoch_models)
        if batches is None:
            return chosen
        fewer = {
            model: tuple(batch for batch in sizes if batch in batches)
            for model, sizes in chosen.batches.items()
        }
        return replace(chosen, batches=fewer)


# a step of ResNet-18 at batch 32 takes 1.5 s on two cores
CPU = Size(
    image_size=224,
    batches={"resnet18": (32,), "resnet50": (8,), "dynamic_resnet18": (8,), "rrdb": (32,)},
    rounds=3,
    warm_up=2,
    repeats=2,
    steps=1,
    stalled={"resnet18": 32, "rrdb": 32},
    stall_images=256,
    stall_rounds=3,
    counted={"resnet18": 32},
    product_side=4096,
    timeout_s=600.0,
)
GPU = Size(
    image_size=224,
    batches=dict.fromkeys(CPU.batches, (256, 512, 1024)),
    rounds=2,
    warm_up=10,
    repeats=3,
    steps=20,
    stalled={"resnet18": 256, "rrdb": 256},
    stall_images=16_384,
    stall_rounds=5,
    counted={"resnet18": 512, "resnet50": 512},
    product_side=8192,
    timeout_s=900.0,
)
_QUICK = {
    "image_size": 32,
    "rounds": 1,
    "warm_up": 1,
    "repeats": 2,
    "steps": 2,
    "batches": {"resnet18": (4,), "rrdb": (4,)},
    "stalled": {"rrdb": 4},
    "stall_images": 32,
    "stall_rounds": 2,
    "counted": {"rrdb": 4},
    "product_side": 512,
    "timeout_s": 120.0,
    "epoch_models": ("cnn3", "rrdb"),
    "epochs": 1,
    "epoch_images": 40,
}


def size_for(*, quick: bool, gpu: bool) -> Size:
    """Return the size of a full run on a device, or of a smoke test."""
    full = GPU if gpu else CPU
    return replace(full, **_QUICK) if quick else full  # type: ignore[arg-type]
