"""Kill training at random moments and hold what it ends with against a run left alone.

`python -m tests.helpers.chaos --kills 20` starts real processes of `stages.train`, kills them by
SIGKILL, SIGTERM or SIGINT, starts them again, and compares weights, metadata, history and metrics byte
by byte. Exit code 1 and the seed of the kills if a byte differs.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from tests.helpers.tiny_run import TinyRun, make_data, run_settings

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# how a process may end by each: told of it while it trains, or before it listens
ENDS = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (75, -signal.SIGTERM),
    signal.SIGINT: (130, -signal.SIGINT),
}
# all that has a state of its own: batch norm, dropout, Adam, averaged weights, mixed images
HARD: dict[str, Any] = {
    "epochs": 25,
    "save_every_s": 0.1,
    "ema_decay": 0.9,
    "augment": {"mixup_alpha": 0.3, "rotation_degrees": 10.0},
}


@dataclass
class Tally:
    """What happened to the runs so far."""

    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resumed: int = 0
    finished: int = 0


def chaos(folder: Path, kills: int, seed: int, **changes: Any) -> Tally:
    """Kill runs so many times in all; each is started again until it ends, then compared."""
    make_data(folder)
    settings = run_settings("cool", **HARD, **changes)
    left_alone = TinyRun(folder, folder / "left-alone", settings)
    began = time.monotonic()
    left_alone.finish()
    whole_s = time.monotonic() - began
    chance, tally = random.Random(seed), Tally()
    while tally.kills.total() < kills:
        run = TinyRun(folder, folder / f"killed-{tally.finished}", settings)
        left = kills - tally.kills.total()
        while left and _killed(run, chance, whole_s, tally):
            left -= 1
        if not (run.out / "speed.json").exists():
            tally.resumed += "resumed at" in run.finish()
        tally.finished += 1
        expected, found = left_alone.results(), run.results()
        tally.wrong += [f"{run.out.name}/{name}" for name in found if found[name] != expected[name]]
        tally.wrong += [str(path) for path in run.out.rglob("state.pt")]
    return tally


def _killed(run: TinyRun, chance: random.Random, whole_s: float, tally: Tally) -> bool:
    """Start a run and kill it some time later; False if it had ended by then."""
    number = chance.choice(SIGNALS)
    with run.running() as process:
        try:
            said, _ = process.communicate(timeout=chance.uniform(0, whole_s))
        except TimeoutExpired:
            process.send_signal(number)
            said, _ = process.communicate(timeout=120)
        tally.resumed += "resumed at" in said
    if process.returncode == 0:
        return False
    tally.kills[f"{number.name}, exit code {process.returncode}"] += 1
    # Python itself shows where Ctrl-C found it while it imports
    clean = process.returncode == -signal.SIGINT or "Traceback" not in said
    if process.returncode not in ENDS[number] or not clean:
        tally.wrong.append(f"{number.name}: exit code {process.returncode}: {said[-500:]}")
    return True


def main() -> None:
    """Kill as often as asked, say what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; printed")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    seed = random.randrange(2**32) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory(prefix="minet-chaos-") as folder:
        tally = chaos(Path(folder), args.kills, seed, processes=args.processes)
    for what, times in sorted(tally.kills.items()):
        print(f"{times:3} x {what}")
    print(f"{tally.kills.total()} kills, {tally.resumed} resumed, {tally.finished} runs finished")
    if tally.wrong:
        sys.exit(f"seed {seed}: differs from the run left alone:\n" + "\n".join(tally.wrong))
    print("weights, metadata, history and metrics: the same bytes as of a run left alone")


if __name__ == "__main__":
    main()
