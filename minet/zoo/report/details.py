"""What the zoo's page says of one row: lines of a label and its words, by table."""

from collections.abc import Iterator

from minet.core.settings import flatten
from minet.zoo.table import Record, comparison_cells

_SCORES = {
    "loss": "cross-entropy, nats",
    "top5": "top-5 accuracy",
    "precision": "precision, classes by their images",
    "recall": "recall, classes by their images",
    "f1": "F1, classes by their images",
    "macro_f1": "F1, classes alike",
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
    "epoch_s": "seconds an epoch",
}
Line = tuple[str, str]


def results(row: Record) -> Iterator[Line]:
    """Give the scores of the test split; of several seeds each, in their order."""
    low, high = row["accuracy_low"], row["accuracy_high"]
    yield "accuracy", f"{row['accuracy']:.4f} ({low:.4f} to {high:.4f})"
    if row["accuracy_sd"] is not None:
        yield "standard deviation over seeds", f"{row['accuracy_sd']:.4f}"
        yield "accuracy by seed", _by_seed(row, "accuracy")
    for key, label in _SCORES.items():
        yield label, _by_seed(row, key)


def comparison(row: Record) -> Iterator[Line]:
    """Give what holding the row against its baseline found; nothing without one."""
    against = row["against"]
    if against is None:
        return
    cells = comparison_cells(against)
    first = ", of the first seed" if len(row["scores"]) > 1 else ""
    yield "difference", cells["difference"]
    yield f"images that this row alone has right{first}", f"{against['only_this']}"
    yield f"images that the baseline alone has right{first}", f"{against['only_baseline']}"
    yield f"p by McNemar's exact test{first}", f"{against['p']:.2g}"
    yield "p adjusted by Holm over all rows", f"{against['p_holm']:.2g}"
    if against["rule"] is not None:
        yield "ratio of accuracies", cells["ratio"]
        yield f"at least {100 * against['rule']:g} % of the baseline's?", against["verdict"]


def published(row: Record) -> Iterator[Line]:
    """Give the figures that the report prints; costs by the report's own names."""
    for key, value in row["published"].items():
        if key == "channels":
            yield from ((f"test accuracy, {planes}", f"{share}") for planes, share in value.items())
        elif key == "cost":
            yield from ((f"cost: {name}", text) for name, text in value.items())
        elif key != "source":
            yield _PUBLISHED.get(key, key), f"{value}"


def cost(row: Record) -> Iterator[Line]:
    """Give what was counted, of one image."""
    counted = row["cost"]
    yield "parameters", f"{counted['parameters']:,} ({counted['parameter_mb']:.2f} MB)"
    yield "multiply-adds", f"{counted['macs'] / 1e6:,.1f} M"
    yield "FLOPs, two for each", f"{counted['flops'] / 1e6:,.1f} M"
    yield "activations", f"{counted['activation_mb']:.1f} MB"
    yield "depth", f"{counted['depth']} layers of weights"
    yield "side of the image", f"{counted['input_px']} px"


def recipe(row: Record) -> Iterator[tuple[str, str, str]]:
    """Give each setting with its value, and the published one where the budget changed it."""
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
    """Give a value of a setting as one reads it: 1.33333 for 4/3, yes for true."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
