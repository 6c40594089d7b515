"""Real kills of real runs, a few of them; `make chaos` makes 20."""

from pathlib import Path

import pytest

from tests.helpers.chaos import chaos


# two processes start more slowly: in a short run, kills would come before training
@pytest.mark.parametrize(
    ("processes", "kills", "epochs"),
    [
        pytest.param(1, 4, 12, marks=pytest.mark.slow),
        pytest.param(2, 4, 25, marks=pytest.mark.slow),
        (2, 1, 25),
    ],
)
def test_a_run_killed_at_random_times_gives_the_same_bytes(
    tmp_path: Path, processes: int, kills: int, epochs: int
) -> None:
    tally = chaos(tmp_path, kills, seed=3, processes=processes, epochs=epochs)
    assert not tally.wrong
    assert tally.kills.total() == kills
    assert tally.resumed, "no kill came after a save"
