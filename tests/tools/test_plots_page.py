"""DVC's plots in a real browser without a network: `dvc plots diff` of runs of two models."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc_render import VegaRenderer, render_html
from dvc_render.vega_templates import TEMPLATES
from PIL import Image
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from minet.core.files import read_csv, write_csv, write_json
from tests.helpers.browser import needs_browser, offline_browser, requested, screen, widths
from tests.helpers.stage import call_stage
from tests.helpers.tree import ROOT
from tools.plots_page import PAGE, page

CHARTS = {
    "Loss": "Loss",
    "Accuracy": "Accuracy",
    "Confusion": "Confusion",
    "Most_frequent_mistakes": "Most frequent mistakes",
    "Recall_by_class": "Recall by class",
    "Channels": "Accuracy by channels",
}
WIDTHS = (390, 1280)
SIZES = [2, 101, pytest.param(10, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.slow)]


def test_the_committed_page_is_that_of_the_current_sources(root: Path) -> None:
    """Run `python -m tools.plots_page` if it is not."""
    assert (root / PAGE).read_text(encoding="utf-8") == page()


def test_the_page_contains_its_script_with_the_licenses(root: Path) -> None:
    text = (root / PAGE).read_text(encoding="utf-8")
    assert "{plot_divs}" in text
    assert "cdn" not in text
    for owner in ("University of Washington Interactive Data Lab", "Mike Bostock"):
        assert owner in text
    assert (root / ".dvc/config").read_text().count("html_template = plots/page.html") == 1


# --- pages of real runs -----------------------------------------------------------------------


def write_run(folder: Path, model: str, *, classes: int, epochs: int, seed: int) -> None:
    """Draw the figures and write the tables of an invented run into plots/ of a folder."""
    rng = np.random.default_rng(seed)
    inputs = folder / "inputs"
    labels = np.repeat(np.arange(classes), 5)
    predicted = np.where(rng.random(len(labels)) < 0.6, labels, (labels + 1) % classes)
    rows = [(f"{k}.jpg", *pair, 0.9) for k, pair in enumerate(zip(labels, predicted, strict=True))]
    write_csv(inputs / "predictions.csv", ("path", "label", "predicted", "probability"), rows)
    names = [f"n{2111277 + 1201 * label:08d}" for label in range(classes)]
    write_csv(inputs / "classes.csv", ("label", "name"), enumerate(names))
    columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    falling = [(k, 2 / (k + 1), 1 - 1 / (k + 1), 2.2 / (k + 1), 0.9 - 0.9 / (k + 1))
               for k in range(epochs)]  # fmt: skip
    write_csv(inputs / "history.csv", columns, falling)
    write_json(inputs / "train.json", {"best_epoch": epochs - 1})
    write_json(inputs / "model.json", {"model": model})
    record = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    write_json(inputs / "channels.json", dict.fromkeys(("RGB", "R"), record))
    pictures = np.zeros((1, 8, 8, 3), np.uint8)
    np.savez(inputs / "mistakes.npz", indices=[0], pictures=pictures, channel_mode="zero")
    names = {"metadata": "model"} | {name: name for name in ("train", "history", "predictions")}
    names |= {name: name for name in ("classes", "channels", "mistakes")}
    files = {path.stem: path for path in inputs.iterdir()}
    arguments = [f"--{option}={files[name]}" for option, name in names.items()]
    done = call_stage("plots", *arguments, f"--out={folder / 'plots'}")
    assert done.returncode == 0, done.stderr


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=SIZES)
def classes(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def compared(classes: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose last commit has a run of resnet18, its workspace one of rrdb."""
    folder = tmp_path_factory.mktemp("plots") / "minet"
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    for file in (".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / file, folder / file)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"plots": plots}))
    run(folder, "git", "init", "-q")
    for model, epochs in (("resnet18", 3), ("rrdb", 1)):
        (folder / "params.yaml").write_text(f"model: {model}\n")
        write_run(folder, model, classes=classes, epochs=epochs, seed=epochs)
        Image.new("RGB", (200, 100), "grey").save(folder / "plots/samples.png")
        if model == "resnet18":
            run(folder, "git", "add", "-A")
            identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
            run(folder, "git", *identity, "commit", "-q", "-m", model)
    output = run(folder, sys.executable, "-m", "dvc", "plots", "diff")
    assert "failed" not in output
    return folder


@pytest.fixture(scope="module")
def started() -> Iterator[WebDriver]:
    with offline_browser() as driver:
        yield driver


def draw(browser: WebDriver, path: Path, charts: int) -> None:
    """Open a page and wait until its charts are drawn."""
    browser.get(path.as_uri())
    drawn = "return document.querySelectorAll('.vega-embed svg.marks').length"
    WebDriverWait(browser, 20).until(lambda d: d.execute_script(drawn) == charts)


@pytest.fixture(params=WIDTHS)
def shown(
    request: pytest.FixtureRequest, started: WebDriver, compared: Path
) -> Iterator[WebDriver]:
    """Show the comparison in a window of a width; afterwards the console must be empty."""
    with screen(started, request.param):
        draw(started, compared / "dvc_plots/index.html", len(CHARTS))
        yield started
    assert started.get_log("browser") == []


def texts(browser: WebDriver, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(text => text.textContent)",
        selector,
    )


@needs_browser
def test_the_page_loads_nothing_and_does_not_scroll_sideways(shown: WebDriver) -> None:
    urls = requested(shown)
    assert urls
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}
    content, window = widths(shown)
    assert content == window
    images = shown.execute_script(
        "return [...document.images].map(image => [image.naturalWidth, image.width])"
    )
    assert len(images) == 4
    assert all(0 < width <= min(natural, window) for natural, width in images)


@needs_browser
def test_titles_name_the_models_of_both_runs(shown: WebDriver) -> None:
    runs = ["workspace: rrdb", "HEAD: resnet18"]
    for chart, title in CHARTS.items():
        matrices = runs if chart == "Confusion" else []  # each with its run above it
        expected = [*matrices, f"{title} of rrdb, resnet18"]
        assert texts(shown, f"#{chart} .role-title text") == expected
        if not matrices:
            assert texts(shown, f"#{chart} .role-legend-label text")[:2] == runs


@needs_browser
def test_every_class_has_a_legible_label(shown: WebDriver, classes: int) -> None:
    """On both axes of both matrices, in one order, without overlap."""
    boxes = shown.execute_script(
        "return [...document.querySelectorAll('#Confusion .role-axis-label text')].map(text => {"
        " const box = text.getBoundingClientRect();"
        " return [text.textContent, box.x, box.y, parseFloat(text.getAttribute('font-size'))]})"
    )
    assert len(boxes) == 4 * classes
    sides = [boxes[start : start + classes] for start in range(0, len(boxes), classes)]
    names = [name for name, *_ in sides[0]]
    assert len(set(names)) == classes
    for side in sides:
        assert [name for name, *_ in side] == names
        steps = np.abs(np.diff([[x, y] for _, x, y, _ in side], axis=0)).max(axis=1)
        assert steps.min() >= min(size for *_, size in side) >= 9


@needs_browser
def test_training_is_dashed_and_epochs_are_whole_numbers(shown: WebDriver) -> None:
    for chart in ("Loss", "Accuracy"):
        assert [text for text in texts(shown, f"#{chart} .role-axis-label text") if text][:3] == [
            "0", "1", "2"
        ]  # fmt: skip
        dashes = shown.execute_script(
            f"return [...document.querySelectorAll('#{chart} .mark-line path')]"
            ".map(line => line.getAttribute('stroke-dasharray'))"
        )
        assert sorted(dashes) == ["1,0", "1,0", "4,3", "4,3"]
        points = f"return document.querySelectorAll('#{chart} .mark-symbol.role-mark path').length"
        assert shown.execute_script(points) == 2 * (3 + 1)


@needs_browser
def test_bars_have_their_intervals(shown: WebDriver, compared: Path, classes: int) -> None:
    for chart, bars in (("Recall_by_class", 2 * classes), ("Channels", 2 * 2)):
        for mark, count in (("rect path", bars), ("rule line", bars + (chart == "Channels"))):
            script = f"return document.querySelectorAll('#{chart} .role-mark.mark-{mark}').length"
            assert shown.execute_script(script) == count, (chart, mark)
    rows = read_csv(compared / "plots/recall.csv")
    assert all(float(row["recall_low"]) < float(row["recall_high"]) for row in rows)


# --- the page alone ---------------------------------------------------------------------------


@needs_browser
@pytest.mark.parametrize("template", [template.DEFAULT_NAME for template in TEMPLATES])
def test_the_page_draws_dvcs_own_templates(
    started: WebDriver, tmp_path: Path, template: str
) -> None:
    """Plots that a user adds; confusion matrices count rows of their data."""
    points = [{"step": k % 2, "value": 1 + k % 3, "rev": "HEAD", "field": "f"} for k in range(6)]
    chart = VegaRenderer(points, "mine", template=template, x="step", y="value")
    render_html([chart], tmp_path / "index.html", ROOT / PAGE)
    draw(started, tmp_path / "index.html", 1)
    assert texts(started, "#mine .role-axis-label text")
    started.get_log("browser")  # DVC's templates cause warnings of Vega-Lite


@needs_browser
def test_a_chart_without_data_is_named(started: WebDriver, tmp_path: Path) -> None:
    """No mistakes, or no table in any of the revisions."""
    render_html([VegaRenderer([], "Worst pairs")], tmp_path / "index.html", ROOT / PAGE)
    draw(started, tmp_path / "index.html", 0)
    assert [text.strip() for text in texts(started, "body > div")] == ["Worst_pairs: no data"]
    assert started.get_log("browser") == []
