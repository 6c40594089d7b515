"""Real kills of real runs, a few of them; `make chaos` makes 20."""

from pathlib import Path

import pytest

from tests.helpers.chaos import chaos


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_at_random_times_gives_the_same_bytes(tmp_path: Path, processes: int) -> None:
    tally = chaos(tmp_path, kills=4 if processes == 1 else 2, seed=3, processes=processes)
    assert not tally.wrong
    assert tally.kills.total() == (4 if processes == 1 else 2)
    assert tally.resumed, "no kill came after a save"
