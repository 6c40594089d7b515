"""Settings of the loaders."""

from typing import Literal

Cache = Literal["auto", "resident", "stream"]  # where training reads a split from
