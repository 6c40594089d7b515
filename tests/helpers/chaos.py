"""Kill training at random times and compare its results with an undisturbed run's.

`python -m tests.helpers.chaos --kills 20` starts real processes of `stages.train`, kills them by
SIGKILL, SIGTERM or SIGINT, starts them again, and compares weights, metadata, history and metrics
byte by byte. If a byte differs, it prints the seed of the kills and exits with code 1.
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
# exit codes by signal: while it trains, before it listens
EXIT_CODES = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (75, -signal.SIGTERM),
    signal.SIGINT: (130, -signal.SIGINT),
}
# everything that has a state: batch norm, dropout, Adam, averaged weights, mixed images
HARD: dict[str, Any] = {
    "epochs": 25,
    "save_every_s": 0.1,
    "ema_decay": 0.9,
    "augment": {"mixup_alpha": 0.3, "rotation_degrees": 10.0},
}


@dataclass
class Tally:
    """Counts and errors of the runs so far."""

    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resumed: int = 0
    finished: int = 0


def chaos(folder: Path, kills: int, seed: int, **changes: Any) -> Tally:
    """Kill runs `kills` times in all; each is started again until it ends, then compared."""
    make_data(folder)
    settings = run_settings("cool", **HARD | changes)
    undisturbed = TinyRun(folder, folder / "undisturbed", settings)
    started = time.monotonic()
    undisturbed.finish()
    run_s = time.monotonic() - started
    rng, tally = random.Random(seed), Tally()
    while tally.kills.total() < kills:
        run = TinyRun(folder, folder / f"killed-{tally.finished}", settings)
        left = kills - tally.kills.total()
        while left and _killed(run, rng, run_s, tally):
            left -= 1
        if not (run.out / "speed.json").exists():
            tally.resumed += "resumed at" in run.finish()
        tally.finished += 1
        expected, actual = undisturbed.results(), run.results()
        differing = [name for name in actual if actual[name] != expected[name]]
        tally.wrong += [f"{run.out.name}/{name}" for name in differing]
        tally.wrong += [str(path) for path in run.out.rglob("state.pt")]
    return tally


def _killed(run: TinyRun, rng: random.Random, run_s: float, tally: Tally) -> bool:
    """Start a run and kill it within `run_s` seconds; return False if it had ended before."""
    number = rng.choice(SIGNALS)
    with run.running() as process:
        try:
            output, _ = process.communicate(timeout=rng.uniform(0, run_s))
        except TimeoutExpired:
            process.send_signal(number)
            output, _ = process.communicate(timeout=120)
        tally.resumed += "resumed at" in output
    if process.returncode == 0:
        return False
    tally.kills[f"{number.name}, exit code {process.returncode}"] += 1
    # Python itself prints a traceback for Ctrl-C during imports
    clean = process.returncode == -signal.SIGINT or "Traceback" not in output
    if process.returncode not in EXIT_CODES[number] or not clean:
        tally.wrong.append(f"{number.name}: exit code {process.returncode}: {output[-500:]}")
    return True


def main() -> None:
    """Kill as often as requested, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the times of the kills; printed")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    seed = random.randrange(2**32) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory(prefix="minet-chaos-") as folder:
        tally = chaos(Path(folder), args.kills, seed, processes=args.processes)
    for what, times in sorted(tally.kills.items()):
        print(f"{times:3} x {what}")
    print(f"{tally.kills.total()} kills, {tally.resumed} resumed, {tally.finished} runs finished")
    if tally.wrong:
        sys.exit(f"seed {seed}: differs from the undisturbed run:\n" + "\n".join(tally.wrong))
    print("weights, metadata, history and metrics: the same bytes as of an undisturbed run")


if __name__ == "__main__":
    main()
