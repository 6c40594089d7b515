"""Read the results of rows from their folders."""

from dataclasses import dataclass
from pathlib import Path

from minet.core.files import read_csv, read_json
from minet.core.settings import read_settings
from minet.zoo.config import RowSettings
from minet.zoo.record import RowOutcome, SeedOutcome


@dataclass(frozen=True)
class Folders:
    """Folders of the rows' settings, inputs, runs and costs."""

    settings: Path
    inputs: Path
    runs: Path
    costs: Path


def row_outcome(name: str, folders: Folders) -> RowOutcome:
    """Read the results of a row; InputError if a file is missing or malformed."""
    settings = read_settings(folders.settings / "rows" / f"{name}.json", RowSettings)
    inputs = folders.inputs / name
    sources = [read_json(inputs / f"{part}.sources.json") for part in ("train", "evaluate")]
    classes = read_csv(folders.runs / name / str(settings.seeds[0]) / "classes.csv")
    return RowOutcome(
        settings=settings,
        cost=read_json(folders.costs / f"{name}.json"),
        sources=sources[0] | sources[1],
        num_classes=len(classes),
        seeds={seed: _seed_outcome(folders.runs / name / str(seed)) for seed in settings.seeds},
    )


def _seed_outcome(folder: Path) -> SeedOutcome:
    predictions = read_csv(folder / "predictions.csv")
    return SeedOutcome(
        train=read_json(folder / "train.json"),
        test=read_json(folder / "test.json"),
        channels=read_json(folder / "channels.json"),
        fingerprint=read_json(folder / "model.json")["fingerprint"],
        paths=[row["path"] for row in predictions],
        correct=[row["label"] == row["predicted"] for row in predictions],
    )
