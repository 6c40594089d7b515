"""Learning rates and image sizes over a run."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minet.train.schedule import image_size_at, learning_rate
from tests.helpers.recipes import make_recipe


@pytest.mark.parametrize("epoch", [0.0, 0.01, 3.0, 9.99, 10.0])
def test_constant_does_not_change(epoch: float) -> None:
    assert learning_rate(make_recipe(), epoch) == 0.1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
@pytest.mark.parametrize(
    ("epoch", "factor"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (1.5, 0.75), (2.0, 1.0)]
)
def test_warm_up_is_linear_from_zero_to_the_full_rate(
    schedule: str, epoch: float, factor: float
) -> None:
    recipe = make_recipe(schedule=schedule, warmup_epochs=2.0, milestones=(5,))
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(
    ("warmup_epochs", "epoch", "factor"),
    [
        (0.0, 0.0, 1.0),
        (0.0, 2.5, 0.75),
        (0.0, 5.0, 0.5),
        (0.0, 9.9, 0.01),
        (2.0, 2.0, 1.0),
        (2.0, 4.0, 0.75),
        (2.0, 9.0, 0.125),
        (10.0, 5.0, 0.5),
    ],
)
def test_linear_falls_from_the_end_of_the_warm_up_to_the_end_of_the_run(
    warmup_epochs: float, epoch: float, factor: float
) -> None:
    recipe = make_recipe(schedule="linear", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_linear_ends_at_exactly_zero_and_is_positive_before(warmup_epochs: float) -> None:
    recipe = make_recipe(schedule="linear", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, 10.0) == 0.0
    assert all(learning_rate(recipe, step / 700) > 0 for step in range(1, 7_000))


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0.0, 1.0), (10 / 4, (1 + 2**-0.5) / 2), (10 / 3, 0.75), (5.0, 0.5), (20 / 3, 0.25)],
)
def test_cosine_without_warm_up(epoch: float, factor: float) -> None:
    assert learning_rate(make_recipe(schedule="cosine"), epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(("epoch", "factor"), [(2.0, 1.0), (6.0, 0.5), (14 / 3, 0.75), (9.0, None)])
def test_cosine_falls_from_the_end_of_the_warm_up_to_the_end_of_the_run(
    epoch: float, factor: float | None
) -> None:
    recipe = make_recipe(schedule="cosine", warmup_epochs=2.0)
    if factor is None:  # an eighth before the end
        factor = (1 - torch.cos(torch.tensor(torch.pi / 8)).item()) / 2
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_cosine_ends_at_exactly_zero(warmup_epochs: float) -> None:
    recipe = make_recipe(schedule="cosine", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, 10.0) == 0.0


def test_cosine_rises_during_the_warm_up_and_falls_after_it() -> None:
    recipe = make_recipe(schedule="cosine", warmup_epochs=2.0)
    rates = [learning_rate(recipe, step / 50) for step in range(501)]
    top = rates.index(max(rates))
    assert top == 100
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.0011  # no jump


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0.0, 0.1), (3.999, 0.1), (4.0, 0.02), (6.999, 0.02), (7.0, 0.004), (10.0, 0.004)],
)
def test_step_multiplies_at_each_milestone(epoch: float, rate: float) -> None:
    recipe = make_recipe(schedule="step", milestones=(4, 7), gamma=0.2)
    assert learning_rate(recipe, epoch) == pytest.approx(rate)


def test_a_step_during_the_warm_up_multiplies_it() -> None:
    recipe = make_recipe(schedule="step", milestones=(2,), warmup_epochs=4.0)
    assert learning_rate(recipe, 1.0) == pytest.approx(0.1 * 0.25)
    assert learning_rate(recipe, 3.0) == pytest.approx(0.1 * 0.75 * 0.1)


def test_step_without_milestones_is_constant() -> None:
    assert learning_rate(make_recipe(schedule="step"), 9.0) == 0.1


def test_a_warm_up_may_last_the_whole_run() -> None:
    recipe = make_recipe(schedule="cosine", warmup_epochs=10.0)
    assert learning_rate(recipe, 5.0) == pytest.approx(0.05)
    assert learning_rate(recipe, 10.0) == pytest.approx(0.1)


# --- image sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 3, 9])
@pytest.mark.parametrize(
    ("initial_px", "growth_epochs"), [(0, 0.0), (0, 5.0), (32, 0.0), (64, 5.0)]
)
def test_images_that_do_not_grow_always_have_input_px(
    initial_px: int, growth_epochs: float, epoch: int
) -> None:
    assert (
        image_size_at(make_recipe(initial_px=initial_px, growth_epochs=growth_epochs), epoch) == 64
    )


def test_image_sizes_by_hand() -> None:
    """From 128 to 224 px over 6 epochs: by 16 px in each."""
    recipe = make_recipe(input_px=224, initial_px=128, growth_epochs=6.0)
    sizes = [image_size_at(recipe, epoch) for epoch in range(10)]
    assert sizes == [128, 144, 160, 176, 192, 208, 224, 224, 224, 224]


@given(data=st.data())
def test_images_grow_linearly_in_steps_of_16_px_up_to_input_px(data: st.DataObject) -> None:
    input_px = data.draw(st.integers(8, 512), label="input_px")
    initial_px = data.draw(st.integers(8, input_px), label="initial_px")
    growth_epochs = data.draw(st.floats(0.01, 10), label="growth_epochs")
    recipe = make_recipe(input_px=input_px, initial_px=initial_px, growth_epochs=growth_epochs)
    sizes = [image_size_at(recipe, epoch) for epoch in range(10)]
    assert sizes[0] == initial_px
    assert sizes == sorted(sizes)
    for epoch, image_size in enumerate(sizes):
        if epoch >= growth_epochs:
            assert image_size == input_px
            continue
        linear = initial_px + (input_px - initial_px) * epoch / growth_epochs
        assert (image_size - initial_px) % 16 == 0
        assert linear - 16 - 1e-6 < image_size <= min(linear + 1e-6, input_px)
