"""Write the inputs of a row of the zoo: settings by seed, paths of its data, digests of files.

DVC's matrix of rows and seeds cannot express which data and which model's code a row needs. Its
stages depend on the files written here instead; a file that does not change reruns none of them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minet.core.cli import parse_paths, run
from minet.core.files import atomic_dir, atomic_write, file_digest, read_json, write_json
from minet.core.settings import read_settings
from minet.zoo.config import RowSettings


def main() -> None:
    """Write the folder of one row atomically."""
    args = parse_paths(__doc__, "settings", "data", "initial", "code", "out")
    settings = read_settings(args.settings, RowSettings)
    data = args.data
    betons = {split: data / "beton" / f"{split}.beton" for split in ("train", "val", "test")}
    classes, index = data / "index" / "classes.csv", data / "index" / "test.csv"
    # a sidecar has the digest of its beton's content
    sidecars = {split: path.with_suffix(".json") for split, path in betons.items()}
    trained = {"classes": classes, "initial": args.initial}
    trained |= {split: betons[split] for split in ("train", "val")}
    with atomic_dir(args.out) as folder:
        for seed in settings.seeds:
            write_json(folder / f"train-{seed}.json", _plain(settings, "train") | {"seed": seed})
        write_json(folder / "evaluate.json", _plain(settings, "evaluate"))
        write_json(folder / "cost.json", _plain(settings, "cost"))
        _write_arguments(folder / "train.args", trained)
        _write_arguments(folder / "evaluate.args", {"test": betons["test"], "index": index})
        code = read_json(args.code)
        write_json(folder / "cost.sources.json", code["cost"])
        _write_digests(
            folder / "train.sources.json",
            [classes, args.initial, sidecars["train"], sidecars["val"]],
            code["train"],
        )
        _write_digests(
            folder / "evaluate.sources.json",
            [classes, index, sidecars["test"]],
            code["evaluate"],
        )


def _plain(settings: RowSettings, part: str) -> dict[str, Any]:
    plain: dict[str, Any] = getattr(settings, part).model_dump(mode="json")
    return plain


def _write_arguments(path: Path, paths: Mapping[str, Path]) -> None:
    """Write the file of arguments that `parse_paths` reads, one per line."""
    with atomic_write(path) as partial:
        partial.write_text("".join(f"--{name}={file}\n" for name, file in paths.items()))


def _write_digests(path: Path, files: Iterable[Path], code: Mapping[str, str]) -> None:
    write_json(path, {str(file): file_digest(file) for file in files} | dict(code))


if __name__ == "__main__":
    run(main)
