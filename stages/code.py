"""Write digests of the code that each row's stages load, one file per model.

The stages of rows depend on these instead of the files themselves: DVC's matrix cannot name a row's
model, and a list of fifty files in each of a hundred stages makes a lock of 20,000 lines.
"""

from pathlib import Path

from minet.core.cli import parse_paths, run
from minet.core.files import atomic_dir, file_digest, write_json
from minet.models.registry import MODELS
from minet.zoo.sources import closure

STAGES = ("inputs", "train", "evaluate", "cost")


def main() -> None:
    """Write the folder atomically."""
    args = parse_paths(__doc__, "out")
    with atomic_dir(args.out) as folder:
        for name, builder in MODELS.items():
            model = Path(*builder.partition(":")[0].split(".")).with_suffix(".py")
            write_json(folder / f"{name}.json", {stage: digests(stage, model) for stage in STAGES})


def digests(stage: str, model: Path) -> dict[str, str]:
    """Return file -> SHA-256 of the files of this tree that a stage loads for a model."""
    root = Path()
    files = closure(root, Path("stages", f"{stage}.py")) | closure(root, model)
    return {str(file): file_digest(file) for file in sorted(files)}


if __name__ == "__main__":
    run(main)
