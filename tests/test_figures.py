"""Figures: PNGs of the expected size, not blank, equal bytes from equal tables."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.table import Cell
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from minet import figures
from minet.augment.channels import ChannelMode
from minet.core.files import read_json
from minet.evaluate.metrics import accuracy_record
from minet.figures import channel_bars, confusion, curves, gallery
from tests.helpers.tree import ROOT

DPI = 110


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def _history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(epochs)
    falling = np.exp(-epoch / 10)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 0.2 + 2 * falling,
            "train_accuracy": 0.9 - 0.8 * falling,
            "val_loss": 0.6 + 1.5 * falling + 0.01 * epoch,
            "val_accuracy": 0.7 - 0.6 * falling,
            "lr": 0.001 * falling,
        }
    )


def _fractions(classes: int) -> NDArray[np.float64]:
    """Return a confusion matrix: 60 % right, the rest predicted as another class."""
    rng = np.random.default_rng(0)
    fractions = 0.6 * np.eye(classes)
    fractions[np.arange(classes), rng.integers(0, classes, classes)] += 0.4
    return fractions


def _worst(classes: int) -> list[tuple[str, str, str]]:
    names = _names(classes)
    return [(name, names[0], f"{20 - row} of 20") for row, name in enumerate(names[1:20])]


def _draw_confusion(path: Path, classes: int) -> None:
    matrix, names = _fractions(classes), _names(classes)
    confusion(matrix, names, _worst(classes), path, title="Confusion of cnn3")


def _draw_curves(path: Path, epochs: int = 30, best: int = 29) -> None:
    curves(_history(epochs), best, path, model="cnn3")


def _names(classes: int) -> list[str]:
    return [f"n{2111277 + 1201 * label:08d}" for label in range(classes)]


def _channels(correct: tuple[int, ...], count: int) -> dict[str, dict[str, float]]:
    sets = ("RGB", "RG", "GB", "RB", "R", "G", "B")
    labels = np.zeros(count, np.int64)
    return {
        name: accuracy_record(labels, np.where(np.arange(count) < number, 0, 1))
        for name, number in zip(sets, correct, strict=True)
    }


def _pictures(count: int, image_size: int = 40) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, image_size, image_size, 3), dtype=np.uint8)


def _captions(count: int) -> list[str]:
    return [f"n02111277\nas n02172182\n(0.{index:02d})" for index in range(count)]


def _draw_gallery(path: Path, count: int = 24) -> None:
    gallery(_pictures(count), _captions(count), path, title="worst mistakes", columns=6)


def _draw_bars(path: Path, channel_mode: str = "zero") -> None:
    channel_bars(_channels(CORRECT, 450), 50, path, model="cnn3", channel_mode=channel_mode)


CORRECT = (290, 150, 140, 160, 60, 40, 9)
FIGURES: dict[str, tuple[Callable[[Path], None], tuple[float, float]]] = {  # and size in inches
    "curves": (_draw_curves, (10, 4)),
    "curves, 1 epoch": (lambda path: _draw_curves(path, 1, 0), (10, 4)),
    "confusion, 2": (lambda path: _draw_confusion(path, 2), (4.98, 4.18)),
    "confusion, 10": (lambda path: _draw_confusion(path, 10), (6.68, 5.88)),
    "confusion, 50": (lambda path: _draw_confusion(path, 50), (10.88, 12.83)),
    "confusion, 101": (lambda path: _draw_confusion(path, 101), (13.9, 15.85)),
    "confusion, 1000": (lambda path: _draw_confusion(path, 1000), (13.4, 15.35)),
    "channels": (_draw_bars, (7, 4)),
    "channels, slice": (lambda path: _draw_bars(path, "slice"), (7, 4)),
    "channels, sigmoid": (lambda path: _draw_bars(path, "sigmoid"), (7, 4)),
    "gallery": (_draw_gallery, (10.5, 9.6)),
    "gallery, 1": (lambda path: _draw_gallery(path, 1), (10.5, 2.4)),
    "gallery, 0": (lambda path: _draw_gallery(path, 0), (10.5, 2.4)),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Draw every figure, each in its own folder."""
    paths = {name: tmp_path_factory.mktemp("plots") / "figure.png" for name in FIGURES}
    for name, (draw, _) in FIGURES.items():
        draw(paths[name])
    return paths


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _ink(pixels: NDArray[np.uint8]) -> float:
    """Return the fraction of pixels that are not white."""
    return float((pixels < 250).any(axis=-1).mean())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_of_the_expected_size_and_not_blank(
    name: str, drawn: dict[str, Path]
) -> None:
    pixels = _read(drawn[name])
    height, width = pixels.shape[:2]
    inches = FIGURES[name][1]
    assert (width, height) == pytest.approx((inches[0] * DPI, inches[1] * DPI), abs=2)
    assert _ink(pixels) > 0.001
    colours = Image.fromarray(pixels).getcolors(maxcolors=pixels.size)
    assert colours is not None
    assert len(colours) > 20  # antialiased text at least
    assert list(drawn[name].parent.iterdir()) == [drawn[name]]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_clipped_at_the_border(name: str, drawn: dict[str, Path]) -> None:
    """The outermost pixels are white: no label crosses the edge."""
    pixels = _read(drawn[name])
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge > 250).all()


@pytest.mark.parametrize("name", FIGURES)
def test_equal_tables_give_equal_bytes(name: str, drawn: dict[str, Path], tmp_path: Path) -> None:
    """Also after other figures were drawn."""
    FIGURES[name][0](tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == drawn[name].read_bytes()


def test_other_tables_give_other_figures(tmp_path: Path) -> None:
    _draw_curves(tmp_path / "one.png", 30)
    _draw_curves(tmp_path / "two.png", 29)
    assert not np.array_equal(_read(tmp_path / "one.png"), _read(tmp_path / "two.png"))


@pytest.mark.parametrize("name", FIGURES)
def test_a_png_contains_no_date_or_version(name: str, drawn: dict[str, Path]) -> None:
    with Image.open(drawn[name]) as image:
        image.load()
        assert set(image.info) <= {"dpi"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_failed_write_leaves_the_old_figure_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_halfway(_: Figure, path: Path, **__: Any) -> None:
        path.write_bytes(b"\x89PNG half")
        raise OSError("No space left on device")

    old = tmp_path / "figure.png"
    old.write_bytes(b"the last one")
    monkeypatch.setattr(Figure, "savefig", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        FIGURES[name][0](old)
    assert old.read_bytes() == b"the last one"
    assert list(tmp_path.iterdir()) == [old]


def test_a_drawn_figure_is_closed(tmp_path: Path) -> None:
    _draw_curves(tmp_path / "curves.png")
    _draw_confusion(tmp_path / "confusion.png", 50)
    _draw_bars(tmp_path / "channels.png")
    _draw_gallery(tmp_path / "gallery.png", 1)
    assert plt.get_fignums() == []


def test_the_folder_of_a_figure_is_created(tmp_path: Path) -> None:
    _draw_curves(tmp_path / "plots" / "new" / "curves.png")
    assert (tmp_path / "plots" / "new" / "curves.png").is_file()


def _texts(monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], None], path: Path) -> list[str]:
    """Return all texts that a figure shows."""
    shown: list[str] = []
    savefig = Figure.savefig

    def record(figure: Figure, *args: Any, **options: Any) -> None:
        savefig(figure, *args, **options)
        texts = [*figure.findobj(Text), *(cell.get_text() for cell in figure.findobj(Cell))]
        shown.extend(text.get_text() for text in texts if text.get_visible())

    monkeypatch.setattr(Figure, "savefig", record)
    draw(path)
    return shown


def test_curves_mark_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[float] = []
    axvline = plt.Axes.axvline

    def record(axis: plt.Axes, x: float, **options: Any) -> Any:
        marked.append(x)
        return axvline(axis, x, **options)

    monkeypatch.setattr(plt.Axes, "axvline", record)
    _draw_curves(tmp_path / "curves.png", best=17)
    assert marked == [17, 17]


def test_training_is_dashed_as_in_dvcs_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has one colour, the first of the charts' palette."""
    chart = read_json(ROOT / ".dvc/plots/curves.json")
    lines = chart["layer"][1]["layer"][0]["encoding"]["strokeDash"]["scale"]
    palette = chart["encoding"]["color"]["scale"]["range"]
    drawn: list[tuple[str, Any, str]] = []
    plot = plt.Axes.plot

    def record(axis: plt.Axes, *values: Any, **options: Any) -> Any:
        drawn.append((options["label"], options["linestyle"], options["color"]))
        return plot(axis, *values, **options)

    monkeypatch.setattr(plt.Axes, "plot", record)
    _draw_curves(tmp_path / "curves.png")
    assert lines["domain"] == list(figures.SPLITS.values())
    assert lines["range"] == [[4, 3], [1, 0]]
    assert drawn == 2 * [
        ("training", (0, (4, 3)), palette[0]),
        ("validation", "-", palette[0]),
    ]


def test_confusion_shows_fractions_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four ants is predicted as a bee; there is no image of a cat."""
    fractions = np.array([[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    names = ["ant", "bee", "cat"]

    def draw(path: Path) -> None:
        confusion(fractions, names, [("ant", "bee", "1 of 4")], path, title="t")

    texts = _texts(monkeypatch, draw, tmp_path / "confusion.png")
    assert sorted(text for text in texts if text in {"0.75", "0.25", "1.00"}) == [
        "0.25", "0.75", "1.00"
    ]  # fmt: skip
    assert all(texts.count(name) == 2 for name in names)  # a row and a column each
    assert "1 of 4" not in texts  # the cells have numbers


@pytest.mark.parametrize("classes", [50, 101])
def test_confusion_of_many_classes_has_every_name_and_the_worst_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    texts = _texts(
        monkeypatch, lambda path: _draw_confusion(path, classes), tmp_path / "confusion.png"
    )
    assert all(texts.count(name) >= 2 for name in _names(classes))
    assert [text for text in texts if " of 20" in text] == [
        f"{20 - row} of 20" for row in range(10)
    ]


def test_labels_of_101_classes_are_legible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine pixels high at least, and not higher than their cell."""
    sizes: list[tuple[float, float]] = []
    savefig = Figure.savefig

    def record(figure: Figure, *args: Any, **options: Any) -> None:
        savefig(figure, *args, **options)
        axis = figure.axes[0]
        cell_px = axis.get_window_extent().height / figure.dpi * DPI / 101
        sizes.extend(
            (label.get_fontsize() / 72 * DPI, cell_px)
            for label in (*axis.get_xticklabels(), *axis.get_yticklabels())
        )

    monkeypatch.setattr(Figure, "savefig", record)
    _draw_confusion(tmp_path / "confusion.png", 101)
    assert len(sizes) == 2 * 101
    assert all(9 <= label_px <= cell_px for label_px, cell_px in sizes)


@pytest.mark.parametrize("kind", ["curves", "confusion, 10", "channels"])
def test_titles_name_the_model(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _texts(monkeypatch, FIGURES[kind][0], tmp_path / "figure.png")
    assert [text for text in texts if text.endswith(" of cnn3")]


@pytest.mark.parametrize("count", [7, 9, 60, 450])
def test_bars_are_drawn_for_accuracies_of_0_and_1(count: int, tmp_path: Path) -> None:
    channels = _channels((count, 0, count, 0, 1, count - 1, count // 2), count)
    path = tmp_path / "channels.png"
    channel_bars(channels, 2, path, model="cnn3", channel_mode="zero")
    assert _ink(_read(tmp_path / "channels.png")) > 0.05


def test_bars_are_labelled_with_set_and_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch, _draw_bars, tmp_path / "channels.png")
    for name, record in _channels(CORRECT, 450).items():
        assert name in texts
        assert f"{record['accuracy']:.3f}" in texts
    assert "chance" in texts


@pytest.mark.parametrize(
    ("channel_mode", "label"),
    [
        ("zero", "channels given (others set to 0)"),
        ("slice", "channels given (others left out)"),
        ("sigmoid", "channels given (sigmoid of their bytes, others left out)"),
    ],
)
def test_bars_state_what_happens_to_the_other_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channel_mode: str, label: str
) -> None:
    draw = partial(_draw_bars, channel_mode=channel_mode)
    assert label in _texts(monkeypatch, draw, tmp_path / "channels.png")


def test_every_channel_mode_has_a_label() -> None:
    assert figures._OTHER_CHANNELS.keys() == set(get_args(ChannelMode))


def test_gallery_shows_every_picture_and_caption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven pictures in rows of three: the last row has one."""
    captions = [f"picture {index}" for index in range(7)]
    texts = _texts(
        monkeypatch,
        lambda path: gallery(_pictures(7), captions, path, title="all seven", columns=3),
        tmp_path / "gallery.png",
    )
    assert [text for text in texts if text.startswith("picture")] == captions
    assert "all seven" in texts


def test_gallery_shows_the_pictures_own_colours(tmp_path: Path) -> None:
    red = np.full((1, 20, 20, 3), (200, 30, 40), np.uint8)
    gallery(red, ["red"], tmp_path / "gallery.png", title="one", columns=1)
    pixels = _read(tmp_path / "gallery.png")
    assert (pixels == (200, 30, 40)).all(axis=-1).mean() > 0.2


ODD_NAMES = ["$5 to $10", r"$\frac{$", "_hidden", "a_b^c", "100 % wool", "plain"]


@pytest.mark.parametrize("kind", ["confusion", "gallery"])
def test_class_names_are_shown_literally(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may have any name: text between dollars is not a formula."""
    kinds: dict[str, Callable[[Path], None]] = {
        "confusion": lambda path: confusion(_fractions(6), ODD_NAMES, [], path, title="t"),
        "gallery": lambda path: gallery(_pictures(6), ODD_NAMES, path, title="t", columns=6),
    }
    texts = _texts(monkeypatch, kinds[kind], tmp_path / "figure.png")
    assert set(ODD_NAMES) <= set(texts)


@pytest.mark.parametrize("count", [2, 10])
def test_long_class_names_are_shortened_in_the_middle(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fit (else matplotlib warns, which is an error here) and remain distinct."""
    names = [f"a class whose name goes on and on until it reaches its number {n}" for n in range(9)]
    names = [*names, "one of 28 letters, in whole."][-count:]
    shown = [f"{name[:14]}…{name[-13:]}" for name in names[:-1]] + names[-1:]
    texts = _texts(
        monkeypatch,
        lambda path: confusion(_fractions(count), names, [], path, title="t"),
        tmp_path / "figure.png",
    )
    assert all(texts.count(name) == 2 for name in shown)
    pixels = _read(tmp_path / "figure.png")
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge > 250).all()


def test_captions_do_not_cross_the_edge(tmp_path: Path) -> None:
    name = "a class with a name of many words"
    captions = [f"{name}\nas {name}\n(0.98)"] * 6
    gallery(_pictures(6), captions, tmp_path / "gallery.png", title="t", columns=6)
    pixels = _read(tmp_path / "gallery.png")
    assert (pixels[:, 0] > 250).all()
    assert (pixels[:, -1] > 250).all()


def test_epochs_are_whole_numbers_even_for_a_single_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch, lambda path: _draw_curves(path, 1, 0), tmp_path / "curves.png")
    assert "0" in texts
    assert not [text for text in texts if "0.0" in text and "\N{MINUS SIGN}" in text]
