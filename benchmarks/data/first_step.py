"""Run `stages.train` up to the end of its first step, print the time of day, and exit.

Takes the arguments of `python -m stages.train`; imports nothing else, as imports are timed.
"""

import os
import sys
import time
from typing import Any

from minet.train.step import TrainStep
from stages import train


def main() -> None:
    """Train one step and exit."""
    # snapshots go there, not into this tree
    os.environ["DVC_ROOT"] = os.path.dirname(sys.argv[sys.argv.index("--weights") + 1])  # noqa: PTH120
    step = TrainStep.step

    def first(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        print(f"first step ended at {time.time()!r}", flush=True)
        os._exit(0)  # without writing weights or a snapshot

    setattr(TrainStep, "step", first)  # noqa: B010 - mypy forbids the assignment
    train.main()


if __name__ == "__main__":
    main()
