"""Figures of other profilers equal those that the reports print, to the last printed digit."""

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
    """Return the figures of every model that a report prints figures of."""
    figures_of = {}
    for name in sorted({row.model for row in PUBLISHED}):
        model = as_profiled(name, num_classes=50)
        counted = {"parameters": float(sum(parameter.numel() for parameter in model.parameters()))}
        figures_of[name] = profiler_figures(model, channels=3, image_size=224) | counted
    return figures_of


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.report}-{row.model}-{row.column}")
def test_published_figure_is_reproduced(
    figures: dict[str, dict[str, float]], row: Published
) -> None:
    """To one unit of the last printed digit: the reports round or truncate."""
    step = 10 if row.printed == "1820" else row.step  # its last zero is not significant
    assert abs(figures[row.model][row.figure] / row.unit - float(row.printed)) < step


def test_14_gmacs_of_report_001_come_from_torchinfo_treating_a_vector_as_an_image(
    figures: dict[str, dict[str, float]],
) -> None:
    """It multiplies a linear layer's parameters by the length of the output vector."""
    model = build("dwg_densenet121", num_classes=50).eval()
    batched = profiler_figures(model, channels=3, image_size=224)["torchinfo_mult_adds"]
    excess = (3 * 128 + 128) * (128 - 1) + (128 * 9_408 + 9_408) * (9_408 - 1)
    assert figures["dwg_densenet121"]["torchinfo_mult_adds"] == batched + excess


def test_generated_convolution_image_by_image_equals_the_batched_one() -> None:
    model, profiled = (f("dwg_densenet121", num_classes=50).eval() for f in (build, as_profiled))
    profiled.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(profiled(images), model(images), rtol=1e-4, atol=1e-4)


def test_tables_of_docs_costs_equal_those_of_the_record() -> None:
    """The record agrees with the pinned counts of the models.

    A new model may be missing from the page until `python -m benchmarks.costs` adds it.
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


def test_profiling_does_not_change_the_model() -> None:
    model = build("rrdb", num_classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    profiler_figures(model, channels=3, image_size=64)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
