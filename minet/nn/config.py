"""Settings of the weights that training starts from."""

from minet.core.settings import Settings


class WeightsSettings(Settings):
    """What `weights` reads: a file of data/weights, or None for random ones, and its address."""

    file: str | None
    url: str | None
