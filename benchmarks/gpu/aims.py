"""The aims of training on a GPU, and how far a record is from them."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from benchmarks.common import table
from benchmarks.gpu.sizes import DYNAMIC, STATIC

Record = Mapping[str, Any]


def aims_table(results: Record) -> str:
    """Return the aims, what was measured, and the ratio of the two: 1 or more is reached."""
    rows = []
    for aim, (target, at_least, measure) in _AIMS.items():
        sign = "at least" if at_least else "at most"
        try:
            value = measure(results)
        except (KeyError, ValueError):  # the part failed, or did not come that far
            rows.append((aim, f"{sign} {target:,}", "not measured", ""))
            continue
        ratio = value / target if at_least else target / value
        digits = 0 if target > 100 else 2
        rows.append((aim, f"{sign} {target:,}", f"{value:,.{digits}f}", f"{ratio:.2f}"))
    return table(("aim", "target", "measured", "ratio to the aim"), rows)


def _end_to_end(results: Record) -> float:
    return float(median(results["end_to_end"]["images_per_s"]))


def _of_bare_step(results: Record) -> float:
    return _end_to_end(results) / float(median(results["end_to_end"]["run"]["bare_images_per_s"]))


def _of_best_peer(results: Record) -> float:
    loops = results["loops"]["competitors"]
    rates = {name: _rate(loop) for name, loop in loops.items() if "failed" not in loop}
    peers = [rate for name, rate in rates.items() if not name.startswith("minet")]
    return rates["minet"] / max(peers)


def _epoch_s(results: Record) -> float:
    return float(results["end_to_end"]["speed"]["epoch_s_median"])


def _dynamic(results: Record) -> float:
    steps = [one for one in results["models"]["steps"].values() if "failed" not in one]
    rates = {(one["model"], one["batch_size"]): _rate(one) for one in steps}
    batch_size = min(batch_size for model, batch_size in rates if model == DYNAMIC)
    return rates[STATIC, batch_size] / rates[DYNAMIC, batch_size]


def _rate(one: Record) -> float:
    return float(median(one["images_per_s"]))


# name -> target, whether it is a minimum, what was measured
_AIMS: dict[str, tuple[float, bool, Callable[[Record], float]]] = {
    "resnet18 by `stages.train`, steps of warm epochs, images/s": (12_000, True, _end_to_end),
    "the same, of the bare step": (0.98, True, _of_bare_step),
    "minet's step, of the fastest other loop's": (1.3, True, _of_best_peer),
    "epoch of 63,325 images, with validation and saving, s": (6, False, _epoch_s),
    "step of dynamic_resnet18, of resnet18's": (1.4, False, _dynamic),
}
