"""The zoo's page in a real browser, from a file, without a network."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select, WebDriverWait

from minet.core.files import read_json
from minet.zoo.report.charts import charts
from tests.helpers.browser import needs_browser, offline_browser, requested, screen, widths
from tests.helpers.tree import ROOT

pytestmark = needs_browser
CHARTS = ("macs", "parameters", "loss", "accuracy", "lr", "confusion")


@pytest.fixture(scope="module")
def record() -> dict:
    return read_json(ROOT / "zoo/comparison.json")


@pytest.fixture(scope="module")
def started() -> Iterator[WebDriver]:
    with offline_browser() as driver:
        yield driver


@pytest.fixture
def page(started: WebDriver, root: Path) -> Iterator[WebDriver]:
    """Open the page again; afterwards the console must be empty."""
    started.get((root / "zoo/report.html").as_uri())
    WebDriverWait(started, 20).until(
        lambda d: d.execute_script("return document.documentElement.dataset.ready") == "yes"
    )
    yield started
    assert started.get_log("browser") == []


def shown_rows(page: WebDriver) -> list[str]:
    return page.execute_script(
        "return [...document.querySelectorAll('#table tbody tr')]"
        ".filter(line => line.offsetParent !== null).map(line => line.dataset.row)"
    )


def marks(page: WebDriver, chart: str, kind: str = "path") -> int:
    """Count the visible marks of a chart."""
    return page.execute_script(
        f"return [...document.querySelectorAll('[data-chart={chart}] [role=graphics-symbol] {kind},"
        f" [data-chart={chart}] .mark-symbol {kind}, [data-chart={chart}] .mark-line {kind},"
        f" [data-chart={chart}] .mark-rect {kind}')]"
        ".filter(mark => mark.getBoundingClientRect().width > 0).length"
    )


def sort_by(page: WebDriver, column: str) -> str:
    """Click on the heading of a column; return its direction."""
    for header in page.find_elements(By.CSS_SELECTOR, "#table th[aria-sort]"):
        if header.text.split()[0] == column:
            header.find_element(By.TAG_NAME, "button").click()
            return header.get_attribute("aria-sort")
    raise AssertionError(column)


def test_the_page_loads_nothing_but_itself(page: WebDriver) -> None:
    urls = requested(page)
    assert urls
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}


def test_the_committed_page_is_that_of_the_current_code(root: Path) -> None:
    """Script, style and charts; the tables of runs, which the rest needs, are not in git."""
    text = (root / "zoo/report.html").read_text()
    for name in ("page.js", "page.css"):
        assert (root / "minet/zoo/report/assets" / name).read_text() in text
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    data = json.loads(match[1])
    assert data["charts"] == charts(data["rows"])


def test_choosing_the_selected_rows_keeps_the_selection(page: WebDriver) -> None:
    Select(page.find_element(By.ID, "family")).select_by_index(0)
    assert page.find_elements(By.CSS_SELECTOR, "#table input:checked")


def test_every_chart_has_marks(page: WebDriver, record) -> None:
    for chart in CHARTS:
        assert marks(page, chart) > 0, chart
    assert marks(page, "macs") >= len(record["rows"])
    classes = next(iter(record["rows"].values()))["classes"]
    assert marks(page, "confusion") >= classes**2


def test_every_row_has_its_title_fingerprint_and_recipe(page: WebDriver, record) -> None:
    assert shown_rows(page) == list(record["rows"])
    for name, row in record["rows"].items():
        text = page.execute_script(f"return document.getElementById('row-{name}').textContent")
        assert row["title"] in text
        assert row["provenance"]["fingerprint"] in text
        assert row["recipe"]["optimizer"] in text


def test_sorting(page: WebDriver, record) -> None:
    accuracies = {name: row["accuracy"] for name, row in record["rows"].items()}
    assert sort_by(page, "ours") == "ascending"
    assert [accuracies[name] for name in shown_rows(page)] == sorted(accuracies.values())
    assert sort_by(page, "ours") == "descending"
    ordered = [accuracies[name] for name in shown_rows(page)]
    assert ordered == sorted(accuracies.values(), reverse=True)
    assert sort_by(page, "model") == "ascending"
    models = [record["rows"][name]["model"] for name in shown_rows(page)]
    assert models == sorted(models)
    headers = page.find_elements(By.CSS_SELECTOR, "#table th[aria-sort]")
    assert sum(header.get_attribute("aria-sort") != "none" for header in headers) == 1


@pytest.mark.parametrize("clicks", [1, 2])
def test_rows_without_a_value_are_last_in_both_directions(
    page: WebDriver, record, clicks: int
) -> None:
    for _ in range(clicks):
        sort_by(page, "difference")
    compared = [record["rows"][name]["comparison"] is not None for name in shown_rows(page)]
    assert compared == sorted(compared, reverse=True)
    differences = [record["rows"][name]["comparison"]["difference"]
                   for name in shown_rows(page)[: sum(compared)]]  # fmt: skip
    assert differences == sorted(differences, reverse=clicks == 2)


def test_filtering(page: WebDriver, record) -> None:
    words = page.find_element(By.ID, "words")
    before = marks(page, "macs")
    words.send_keys("COOL 003")
    cool = [name for name, row in record["rows"].items() if row["model"] == "cool"]
    assert shown_rows(page) == cool
    assert page.find_element(By.ID, "count").text == f"{len(cool)} of {len(record['rows'])} rows"
    WebDriverWait(page, 10).until(lambda d: marks(d, "macs") < before)
    words.clear()
    words.send_keys("34")  # of names, not of numbers
    texts = {
        name: f"{name} {row['title']} {row['model']} {(row['comparison'] or {}).get('row')}"
        for name, row in record["rows"].items()
    }
    matching = [name for name, text in texts.items() if "34" in text]
    assert shown_rows(page) == matching
    nothing = page.find_element(By.ID, "nothing")
    assert not nothing.is_displayed()
    words.clear()
    words.send_keys("no such row")
    assert shown_rows(page) == []
    assert nothing.is_displayed()
    words.clear()
    words.send_keys(" ")
    assert shown_rows(page) == list(record["rows"])
    Select(page.find_element(By.ID, "report")).select_by_visible_text("002")
    assert shown_rows(page) == [
        name for name, row in record["rows"].items() if row["report"] == "002"
    ]


def test_curves_of_selected_rows_share_a_chart(page: WebDriver, record) -> None:
    baseline = "r000_resnet34"
    rows = record["rows"].items()
    baselines = {name: (row["comparison"] or {}).get("row") for name, row in rows}
    family = [name for name in baselines if baseline in (name, baselines[name])]
    choice = Select(page.find_element(By.ID, "family"))
    choice.select_by_visible_text(f"{baseline} and rows compared with it ({len(family)})")
    legend = page.find_element(By.ID, "chosen")
    WebDriverWait(page, 10).until(lambda _: legend.text.split("\n") == family)
    for chart, splits in (("loss", 2), ("accuracy", 2), ("lr", 1)):
        lines = page.execute_script(
            f"return document.querySelectorAll('[data-chart={chart}] .mark-line path').length"
        )
        assert lines >= splits * len(family)
    page.find_element(By.ID, "none").click()
    WebDriverWait(page, 10).until(lambda _: legend.text == "")
    hint = page.find_element(By.ID, "unchosen")
    assert hint.is_displayed()
    page.find_element(By.CSS_SELECTOR, "[data-row=r003_cool] input").click()
    WebDriverWait(page, 10).until(lambda _: legend.text == "r003_cool")
    assert choice.first_selected_option.text == "the rows selected in the table"
    assert not hint.is_displayed()
    assert sort_by(page, "curves") == "ascending"
    assert shown_rows(page)[0] == "r003_cool"
    page.find_element(By.ID, "none").click()
    sorted_by = "return document.querySelector('#table th').getAttribute('aria-sort')"
    assert page.execute_script(sorted_by) == "none", "the selection has changed"


def test_links_to_a_row_work_after_another_was_selected(page: WebDriver) -> None:
    choice = Select(page.find_element(By.ID, "one"))
    for _ in range(2):
        for name, how in (("r003_cool", "choice"), ("r003_resnet34", "link")):
            if how == "choice":
                choice.select_by_visible_text(name)
            else:
                page.find_element(By.CSS_SELECTOR, "#row-r003_cool caption a").click()
            article = page.find_element(By.ID, f"row-{name}")
            WebDriverWait(page, 10).until(lambda _, shown=article: shown.is_displayed())
            assert choice.first_selected_option.text == name


def test_a_link_clicked_again_scrolls_to_the_same_position(page: WebDriver) -> None:
    positions = []
    top = "return document.getElementById('detail').getBoundingClientRect().top"
    for _ in range(2):
        page.execute_script("scrollTo(0, 0)")
        page.find_element(By.CSS_SELECTOR, "#table a[href='#row-r003_cool']").click()
        WebDriverWait(page, 10).until(lambda d: d.execute_script("return scrollY") > 0)
        WebDriverWait(page, 10).until(lambda d: abs(d.execute_script(top)) < 5)
        positions.append(page.execute_script("return scrollY"))
    assert positions[0] == positions[1]


def test_the_legend_names_identical_curves(page: WebDriver) -> None:
    # identical with random initial weights
    duplicates = ("r002_resnet18", "r002_resnet18_pretrained")
    page.find_element(By.ID, "none").click()
    for name in duplicates:
        page.find_element(By.CSS_SELECTOR, f"[data-row={name}] input").click()
    legend = page.find_element(By.ID, "chosen")
    expected = f"{duplicates[0]}\n{duplicates[1]}, identical to {duplicates[0]}"
    WebDriverWait(page, 10).until(lambda _: legend.text == expected)


def test_settings_that_the_budget_changed_have_their_published_values(
    page: WebDriver, record
) -> None:
    for name, row in record["rows"].items():
        changed = dict(page.execute_script(
            f"return [...document.querySelectorAll('#row-{name} .changed')].map(line =>"
            " [line.cells[0].textContent, [line.cells[1].textContent, line.cells[2].textContent]])"
        ))  # fmt: skip
        assert changed.pop("weights", None) == (
            ["random", "imagenet"] if row["pretrained_as_published"] else None
        )
        published = row["recipe_as_published"]
        assert changed.keys() == published.keys()
        assert changed["epochs"] == [str(row["recipe"]["epochs"]), str(published["epochs"])]


def test_one_row_in_detail(page: WebDriver, record) -> None:
    page.find_element(By.CSS_SELECTOR, "#table a[href='#row-r002_resnet18']").click()
    WebDriverWait(page, 10).until(
        lambda d: d.find_element(By.ID, "row-r002_resnet18").is_displayed()
    )
    shown = [article.get_attribute("id") for article in page.find_elements(By.TAG_NAME, "article")
             if article.is_displayed()]  # fmt: skip
    assert shown == ["row-r002_resnet18"]
    cells = "return document.querySelectorAll('[data-chart=confusion] .mark-rect path').length"
    WebDriverWait(page, 10).until(lambda d: d.execute_script(cells) == 25)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways(page: WebDriver, width: int) -> None:
    with screen(page, width):
        page_px, text_px = widths(page)
    assert page_px == text_px <= width  # wider elements scroll within their boxes


@pytest.mark.parametrize("table", [".rows", ".sets"])
def test_names_of_rows_stay_visible_and_narrow(page: WebDriver, table: str) -> None:
    """On a phone, with the table scrolled to its last column."""
    with screen(page, 390):
        box, *names = page.execute_script(
            f"const box = document.querySelector('{table}');"
            "const names = box.querySelectorAll('tbody th'); box.scrollLeft = 9999;"
            "const title = box.querySelector('thead tr').cells[names[0].cellIndex];"
            "return [box, title, ...names].map(cell => cell.getBoundingClientRect())"
        )
        assert page.execute_script(f"return document.querySelector('{table}').scrollLeft") > 0
    assert len(names) > 2
    for name in names:
        assert name["left"] == pytest.approx(box["left"], abs=2)
        assert name["width"] < box["width"] / 2


def test_text_of_charts_follows_the_dark_scheme(page: WebDriver) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        colours = page.execute_script(
            "const of = (element) => getComputedStyle(element);"
            "return [of(document.body).backgroundColor, of(document.body).color,"
            " of(document.querySelector('[data-chart=loss] .role-axis-label text')).fill]"
        )
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colours[0] == "rgb(20, 23, 26)"
    assert colours[1] == colours[2] == "rgb(228, 232, 236)"
