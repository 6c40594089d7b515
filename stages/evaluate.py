"""Score the trained model on the test split, with every set of channels."""

from pathlib import Path

import numpy as np
import torch

from minet.augment import InputForm
from minet.checkpoint import load_model
from minet.data.loader import BetonLoader
from minet.evaluation import Predictions, predict
from minet.results import read_csv, whole_file, write_csv, write_json
from minet.scores import accuracy_record, class_rows, score_record
from minet.settings import read_settings
from minet.settings_score import EvaluateSettings
from stages.cli import parse_paths, run, watched, workers


def main() -> None:
    """Write the metrics, the predictions, the classes and the pictures of the worst mistakes."""
    args = parse_paths(
        __doc__,
        *("settings", "weights", "card", "test", "index"),
        *("metrics", "channels", "predictions", "classes", "bars", "mistakes"),
    )
    settings = read_settings(args.settings, EvaluateSettings)
    model, card = load_model(args.weights, args.card)
    found = predict(
        model,
        BetonLoader(args.test, batch_size=settings.batch_size, workers=workers()),
        InputForm(card["input_px"], tuple(card["mean"]), tuple(card["std"])),
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        mistakes=settings.mistakes,
        flip=settings.flip,
        progress=lambda batches, total: watched(
            batches,
            -(-total // settings.batch_size),
            "test",
            images_each=settings.batch_size,
        ),
    )
    rgb = found.probabilities["RGB"]
    predicted = rgb.argmax(axis=1)
    record = score_record(found.labels, rgb)
    write_json(args.metrics, record | ({"flip": True} if settings.flip else {}))
    channels = {
        name: accuracy_record(found.labels, probabilities.argmax(axis=1))
        for name, probabilities in found.probabilities.items()
    }
    write_json(args.channels, channels)
    bars = [(name, *record.values()) for name, record in channels.items()]
    write_csv(args.bars, ("channels", "accuracy", "accuracy_low", "accuracy_high"), bars)
    columns = ("label", "name", "count", "precision", "recall", "f1")
    write_csv(args.classes, columns, class_rows(found.labels, predicted, card["classes"]))
    paths = [row["path"] for row in read_csv(args.index)]
    rows = zip(paths, found.labels, predicted, rgb.max(axis=1), strict=True)
    write_csv(args.predictions, ("path", "label", "predicted", "probability"), rows)
    _write_mistakes(args.mistakes, found)
    low, high = record["accuracy_low"], record["accuracy_high"]
    print(f"test accuracy {record['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})")


def _write_mistakes(path: Path, found: Predictions) -> None:
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, places=found.mistakes, pictures=found.pictures)


if __name__ == "__main__":
    run(main)
