"""Write digests of the code that each row's stages load, a file a model.

The rows of the zoo depend on these and not on the files themselves: DVC's matrix cannot name a
row's model, and a list of fifty files in each of a hundred stages makes a lock of 20,000 lines.
"""

from pathlib import Path

from minet.core.cli import parse_paths, run
from minet.core.files import atomic_dir, file_digest, write_json
from minet.models.registry import MODELS
from minet.zoo.sources import closure

STAGES = ("inputs", "train", "evaluate", "cost")


def main() -> None:
    """Write the folder, whole."""
    args = parse_paths(__doc__, "out")
    with atomic_dir(args.out) as folder:
        for name, builder in MODELS.items():
            own = Path(*builder.partition(":")[0].split(".")).with_suffix(".py")
            write_json(folder / f"{name}.json", {stage: digests(stage, own) for stage in STAGES})


def digests(stage: str, model: Path) -> dict[str, str]:
    """Give the digest of each file of this tree that a stage loads for a model."""
    root = Path()
    files = closure(root, Path("stages", f"{stage}.py")) | closure(root, model)
    return {str(file): file_digest(file) for file in sorted(files)}


if __name__ == "__main__":
    run(main)
