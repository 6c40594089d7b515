"""Training loops that people use instead, by turns: each round runs every loop once."""

from typing import Any

from benchmarks.gpu.work import Work
from benchmarks.train.competitors import COMPETITORS, for_device
from benchmarks.train.rounds import measure_in_child, merged

_COMPILED = ("minet", "timm, compiled")
_NAMES = [name for name in COMPETITORS if name != "minet, augmented"]  # others do not augment


def measure(work: Work) -> None:
    """Report images per second of each loop on the same synthetic images."""
    job = work.job(work.size.model, work.size.batch_size)
    work.report("job", value=job.record())
    results: dict[str, dict[str, Any]] = {}
    for _ in range(work.size.rounds):
        for name in filter(_NAMES.__contains__, for_device()):
            earlier = results.get(name)
            if earlier is not None and "failed" in earlier:
                continue
            request = {"name": name, "job": job.record()}
            result = measure_in_child(work.folder, "loops", work.left_s(), **request)
            results[name] = result if "failed" in result else merged(earlier, result)
            work.report("competitors", name, value=results[name])
    work.report("settings", value={name: dict(COMPETITORS[name].settings) for name in results})
    for name, result in results.items():
        work.claim(f"{name} was measured", "failed" not in result, expected=True)
        if "failed" not in result:
            compiled = work.gpu and name in _COMPILED
            work.claim(f"{name} is compiled", result["compiled_graphs"] > 0, expected=compiled)
