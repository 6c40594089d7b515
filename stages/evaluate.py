"""Evaluate the trained model on the test split, with every channel set."""

from argparse import Namespace
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from minet.augment.config import AugmentSettings, CompatSettings
from minet.augment.plan import EpochPlan, eval_plan
from minet.augment.transforms import InputSpec
from minet.core.arrays import ceil_div
from minet.core.cli import parse_paths, progress_bar, run, workers
from minet.core.files import atomic_write, read_csv, write_csv, write_json
from minet.core.rng import RngStream, torch_seed
from minet.core.settings import parse, read_settings
from minet.evaluate.config import EvaluateSettings, SubmissionSettings
from minet.evaluate.metrics import accuracy_record, class_rows, score_record, submission_rows
from minet.evaluate.predict import Predictions, predict
from minet.loader.stream import StreamLoader
from minet.nn.checkpoint import load_model

_INPUTS = ("settings", "weights", "metadata", "test", "index")
_OUTPUTS = ("metrics", "channels", "predictions", "classes", "submission")


def main() -> None:
    """Write the metrics, the predictions, the classes and the images of the worst mistakes."""
    args = parse_paths(__doc__, *_INPUTS, *_OUTPUTS, optional=("mistakes",))
    settings = read_settings(args.settings, EvaluateSettings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    predictions, classes = _predict(args, settings)
    record = score_record(predictions.labels, predictions.trained)
    _write_metrics(args, settings, record)
    _write_channels(args, predictions)
    _write_tables(args, settings.submission, predictions, classes)
    if args.mistakes:
        _write_mistakes(args, predictions)
    low, high = record["accuracy_low"], record["accuracy_high"]
    print(f"test accuracy {record['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})")


def _predict(args: Namespace, settings: EvaluateSettings) -> tuple[Predictions, list[str]]:
    """Return the model's predictions for the test split, and the names of its classes."""
    model, metadata = load_model(args.weights, args.metadata)
    test = StreamLoader(args.test, batch_size=settings.batch_size, workers=workers())
    predictions = predict(
        model,
        test,
        _input_spec(metadata),
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        mistakes=settings.mistakes,
        flip=settings.flip,
        missing_channels=settings.missing_channels,
        plan=_plan(metadata, settings, test),
        progress=lambda batches, total: progress_bar(
            batches,
            ceil_div(total, settings.batch_size),
            "test",
            images_each=settings.batch_size,
        ),
    )
    return predictions, metadata["classes"]


def _input_spec(metadata: dict[str, Any]) -> InputSpec:
    """Return the input spec that the model was trained with."""
    values = {field.name: metadata[field.name] for field in fields(InputSpec)}
    return InputSpec(**values | {name: tuple(values[name]) for name in ("mean", "std")})


def _plan(
    metadata: dict[str, Any], settings: EvaluateSettings, test: StreamLoader
) -> EpochPlan | None:
    """Plan the augmentation of the test images; None if there is none, as almost always."""
    seed, recipe = (metadata["settings"][name] for name in ("seed", "train"))
    plan = eval_plan(
        test.count,
        test.record["image_size"],
        parse(AugmentSettings, recipe["augment"]),
        parse(CompatSettings, recipe["compat"]),
        shuffle=settings.channel_shuffle,
        seed=torch_seed(seed, RngStream.TEST),
    )
    return None if plan is None else plan(0)


def _write_metrics(args: Namespace, settings: EvaluateSettings, record: dict[str, Any]) -> None:
    """Write the metrics with the settings that change them, where they are on."""
    flip = {"flip": True} if settings.flip else {}
    shuffle = {"channel_shuffle": settings.channel_shuffle} if settings.channel_shuffle else {}
    write_json(args.metrics, record | flip | shuffle)


def _write_channels(args: Namespace, predictions: Predictions) -> None:
    """Write the accuracy on each channel set."""
    channels = {
        name: accuracy_record(predictions.labels, probabilities.argmax(axis=1))
        for name, probabilities in predictions.probabilities.items()
    }
    write_json(args.channels, channels)


def _write_tables(
    args: Namespace, submission: SubmissionSettings, predictions: Predictions, classes: list[str]
) -> None:
    """Write the metrics of each class, the prediction of each image and the submission."""
    labels, predicted = predictions.labels, predictions.trained.argmax(axis=1)
    header = ("label", "name", "count", "precision", "recall", "f1")
    write_csv(args.classes, header, class_rows(labels, predicted, classes))
    paths = [row["path"] for row in read_csv(args.index)]
    rows = zip(paths, labels, predicted, predictions.trained.max(axis=1), strict=True)
    write_csv(args.predictions, ("path", "label", "predicted", "probability"), rows)
    submitted = submission_rows(paths, predicted, classes, submission.ids, submission.classes)
    write_csv(args.submission, submission.columns, submitted)


def _write_mistakes(args: Namespace, predictions: Predictions) -> None:
    """Write what `plots` needs beside the tables: the worst mistakes and the channel mode."""
    with atomic_write(args.mistakes) as partial, partial.open("wb") as file:
        np.savez(
            file,
            indices=predictions.mistakes,
            pictures=predictions.pictures,
            channel_mode=predictions.channel_mode,
        )


if __name__ == "__main__":
    run(main)
