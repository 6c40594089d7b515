"""Tables of one row on the zoo's page, as pairs of label and text."""

from collections.abc import Iterator

from minet.core.settings import flatten
from minet.zoo.table import Record, difference_cell, ratio_cell

_SCORES = {
    "loss": "cross-entropy (nats)",
    "top5": "top-5 accuracy",
    "precision": "precision, weighted by class size",
    "recall": "recall, weighted by class size",
    "f1": "F1, weighted by class size",
    "macro_f1": "F1, macro average",
}
_PUBLISHED = {
    "accuracy": "test accuracy",
    "max_accuracy": "test accuracy of the best epoch",
    "val_accuracy": "validation accuracy",
    "train_accuracy": "training accuracy",
    "kaggle": "accuracy on Kaggle",
    "loss": "test loss",
    "val_loss": "validation loss",
    "train_loss": "training loss",
    "f1": "F1",
    "epoch_s": "seconds per epoch",
}
Line = tuple[str, str]


def results(row: Record) -> Iterator[Line]:
    """Yield the scores on the test split; of several seeds each, in their order."""
    low, high = row["accuracy_low"], row["accuracy_high"]
    yield "accuracy", f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f})"
    if row["accuracy_sd"] is not None:
        yield "standard deviation over seeds", f"{row['accuracy_sd']:.4f}"
        yield "accuracy by seed", _by_seed(row, "accuracy")
    for key, label in _SCORES.items():
        yield label, _by_seed(row, key)


def comparison(row: Record) -> Iterator[Line]:
    """Yield the comparison with the baseline; nothing without one."""
    record = row["comparison"]
    if record is None:
        return
    first = " (first seed)" if len(row["scores"]) > 1 else ""
    yield "difference of accuracy", difference_cell(record)
    yield f"images that only this row predicts correctly{first}", f"{record['only_this']}"
    yield f"images that only the baseline predicts correctly{first}", f"{record['only_baseline']}"
    yield f"p, McNemar's exact test{first}", f"{record['p']:.2g}"
    yield "p, Holm-adjusted over all rows", f"{record['p_holm']:.2g}"
    if record["target_ratio"] is not None:
        yield "ratio of accuracies", ratio_cell(record)
        yield f"at least {100 * record['target_ratio']:g} % of the baseline's?", record["verdict"]


def published(row: Record) -> Iterator[Line]:
    """Yield the figures that the report prints; costs by the names that it uses."""
    for key, value in row["published"].items():
        if key == "channels":
            yield from (
                (f"test accuracy, {channels}", f"{accuracy}")
                for channels, accuracy in value.items()
            )
        elif key == "cost":
            yield from ((f"cost: {name}", text) for name, text in value.items())
        elif key != "source":
            yield _PUBLISHED.get(key, key), f"{value}"


def cost(row: Record) -> Iterator[Line]:
    """Yield the counted cost of one image."""
    counted = row["cost"]
    yield "parameters", f"{counted['parameters']:,} ({counted['parameter_mb']:.2f} MB)"
    yield "multiply-adds", f"{counted['macs'] / 1e6:,.1f} M"
    yield "FLOPs (2 per multiply-add)", f"{counted['flops'] / 1e6:,.1f} M"
    yield "activations", f"{counted['activation_mb']:.1f} MB"
    yield "depth", f"{counted['depth']} layers with weights"
    yield "image size", f"{counted['input_px']} px"


def recipe(row: Record) -> Iterator[tuple[str, str, str]]:
    """Yield setting, value, and the published value if the budget changed it."""
    changed = row["recipe_as_published"]
    yield "model", row["model"], ""
    for key, value in row["arguments"].items():
        yield f"{row['model']}.{key}", _text(value), ""
    yield "data", row["data"], ""
    pretrained = row["pretrained_as_published"] and row["weights"] == "random"
    yield "weights", row["weights"], "imagenet" if pretrained else ""
    for key, value in flatten(row["recipe"]):
        yield key, _text(value), _text(changed[key]) if key in changed else ""
    for key, value in flatten(row["evaluate"]):
        yield f"evaluate.{key}", _text(value), ""


def _by_seed(row: Record, key: str) -> str:
    return ", ".join(f"{scores[key]:.4f}" for scores in row["scores"].values())


def _text(value: object) -> str:
    """Return the value of a setting as text: 1.33333 for 4/3, yes for true."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
