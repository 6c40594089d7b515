"""Score the trained model on the test split, with every set of channels."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minet.augment.config import AugmentSettings, CompatSettings, scored_augment
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import InputSpec
from minet.core.cli import parse_paths, progress_bar, run, workers
from minet.core.files import atomic_write, read_csv, write_csv, write_json
from minet.core.rng import RngStream, torch_seed
from minet.core.settings import parse, read_settings
from minet.evaluate.config import EvaluateSettings
from minet.evaluate.metrics import accuracy_record, class_rows, score_record, submission_rows
from minet.evaluate.predict import Predictions, predict
from minet.loader.stream import StreamLoader
from minet.nn.checkpoint import load_model


def main() -> None:
    """Write the metrics, the predictions, the classes and the pictures of the worst mistakes."""
    args = parse_paths(
        __doc__,
        *("settings", "weights", "metadata", "test", "index"),
        *("metrics", "channels", "predictions", "classes", "submission"),
        optional=("bars", "mistakes"),
    )
    settings = read_settings(args.settings, EvaluateSettings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model, metadata = load_model(args.weights, args.metadata)
    test = StreamLoader(args.test, batch_size=settings.batch_size, workers=workers())
    found = predict(
        model,
        test,
        _form(metadata),
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        mistakes=settings.mistakes,
        flip=settings.flip,
        missing_channels=settings.missing_channels,
        plan=_plan(metadata, settings, test),
        progress=lambda batches, total: progress_bar(
            batches,
            -(-total // settings.batch_size),
            "test",
            images_each=settings.batch_size,
        ),
    )
    predicted = found.own.argmax(axis=1)
    record = score_record(found.labels, found.own)
    shuffle = {"channel_shuffle": settings.channel_shuffle} if settings.channel_shuffle else {}
    write_json(args.metrics, record | ({"flip": True} if settings.flip else {}) | shuffle)
    channels = {
        name: accuracy_record(found.labels, probabilities.argmax(axis=1))
        for name, probabilities in found.probabilities.items()
    }
    write_json(args.channels, channels)
    if args.bars:
        bars = [(name, *record.values()) for name, record in channels.items()]
        write_csv(args.bars, ("channels", "accuracy", "accuracy_low", "accuracy_high"), bars)
    columns = ("label", "name", "count", "precision", "recall", "f1")
    write_csv(args.classes, columns, class_rows(found.labels, predicted, metadata["classes"]))
    paths = [row["path"] for row in read_csv(args.index)]
    rows = zip(paths, found.labels, predicted, found.own.max(axis=1), strict=True)
    write_csv(args.predictions, ("path", "label", "predicted", "probability"), rows)
    form = settings.submission
    submitted = submission_rows(paths, predicted, metadata["classes"], form.ids, form.classes)
    write_csv(args.submission, form.columns, submitted)
    if args.mistakes:
        _write_mistakes(args.mistakes, found)
    low, high = record["accuracy_low"], record["accuracy_high"]
    print(f"test accuracy {record['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})")


def _form(metadata: dict[str, Any]) -> InputSpec:
    """Give what the model was trained to see."""
    names = [field.name for field in fields(InputSpec)]
    known = {name: metadata[name] for name in names}
    return InputSpec(**known | {name: tuple(known[name]) for name in ("mean", "std")})


def _plan(
    metadata: dict[str, Any], settings: EvaluateSettings, test: StreamLoader
) -> EpochPlan | None:
    """Plan what is done to each test image; almost always nothing."""
    seed, recipe = (metadata["settings"][name] for name in ("seed", "train"))
    scored = scored_augment(
        parse(AugmentSettings, recipe["augment"]),
        parse(CompatSettings, recipe["compat"]),
        shuffle=settings.channel_shuffle,
    )
    if scored is None:
        return None
    return plan_epoch(
        test.count, test.record["image_size"], scored, torch_seed(seed, RngStream.TEST), epoch=0
    )


def _write_mistakes(path: Path, found: Predictions) -> None:
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, places=found.mistakes, pictures=found.pictures)


if __name__ == "__main__":
    run(main)
