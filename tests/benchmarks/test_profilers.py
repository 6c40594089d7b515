"""Figures of other profilers against those that the reports print, digit for digit."""

import pytest
import torch

from benchmarks import costs
from benchmarks.profilers import profiler_figures
from benchmarks.published import PUBLISHED, Published, as_profiled
from minet.core.files import read_json
from minet.models.registry import MODELS, build
from tests.helpers.pinned import DEPTHS, PINNED
from tests.helpers.tree import ROOT


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    """Give the figures of every model that a report prints some of."""
    found = {}
    for name in sorted({row.model for row in PUBLISHED}):
        model = as_profiled(name, num_classes=50)
        own = {"parameters": float(sum(parameter.numel() for parameter in model.parameters()))}
        found[name] = profiler_figures(model, channels=3, image_size=224) | own
    return found


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.report}-{row.model}-{row.column}")
def test_a_published_figure_is_found_again(
    figures: dict[str, dict[str, float]], row: Published
) -> None:
    """To one in the last digit printed: the reports round or cut off."""
    step = 10 if row.printed == "1820" else row.step  # its last zero says nothing
    assert abs(figures[row.model][row.figure] / row.unit - float(row.printed)) < step


def test_the_14_gmacs_of_report_001_are_torchinfo_reading_a_vector_as_an_image(
    figures: dict[str, dict[str, float]],
) -> None:
    """It multiplies a linear layer's parameters by the length of its output vector."""
    model = build("dwg_densenet121", num_classes=50).eval()
    batched = profiler_figures(model, channels=3, image_size=224)["torchinfo_mult_adds"]
    excess = (3 * 128 + 128) * (128 - 1) + (128 * 9_408 + 9_408) * (9_408 - 1)
    assert figures["dwg_densenet121"]["torchinfo_mult_adds"] == batched + excess


def test_image_by_image_is_the_same_network() -> None:
    model, profiled = (f("dwg_densenet121", num_classes=50).eval() for f in (build, as_profiled))
    profiled.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(profiled(images), model(images), rtol=1e-4, atol=1e-4)


def test_page_of_costs_shows_the_record() -> None:
    """The tables of docs/costs.md are those of benchmarks/results/costs.json, of these models.

    A new model need not be on the page at once: `python -m benchmarks.costs` puts it there.
    """
    record = read_json(ROOT / costs.RESULTS)
    page = (ROOT / costs.PAGE).read_text()
    assert costs.models_table(record) in page
    assert costs.published_table(record) in page
    assert record.keys() <= MODELS.keys()
    for name, row in record.items():
        assert row["parameters"] == PINNED[name][0].parameters
        macs = row["macs_convolution"] + row["macs_linear"]
        assert macs == pytest.approx(PINNED[name][0].macs_millions * 1e6, rel=1e-3)
        assert row["depth"] == DEPTHS[name]


def test_profiling_leaves_the_model_as_it_was() -> None:
    model = build("rrdb", num_classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    profiler_figures(model, channels=3, image_size=64)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
