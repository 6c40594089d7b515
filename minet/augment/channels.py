"""Channel sets: which of the red, green and blue channels a model receives, and how."""

from typing import Literal, get_args

ChannelSet = Literal["RGB", "RG", "GB", "RB", "R", "G", "B"]
# the channels outside the set are masked with 0 (zero: the input keeps three channels) or dropped
# (slice); sigmoid drops them and applies a sigmoid to the bytes of the others (report 003)
ChannelMode = Literal["zero", "slice", "sigmoid"]

CHANNEL_SETS = {name: tuple(map("RGB".index, name)) for name in get_args(ChannelSet)}


def input_channels(channels: str, channel_mode: str) -> tuple[int, ...]:
    """Return the indices of a stored image's channels that form the input, masked ones included."""
    return CHANNEL_SETS["RGB" if channel_mode == "zero" else channels]


def tested_sets(channels: str, channel_mode: str, missing_channels: str) -> dict[str, str]:
    """Return the channel sets that a model can be tested on, each with its channel mode.

    A model trained on dropped channels is tested on its own set only; for any other model the
    missing channels are treated as `missing_channels` says (zero or slice).
    """
    if channel_mode == "sigmoid" or (channel_mode == "slice" and channels != "RGB"):
        return {channels: channel_mode}
    return dict.fromkeys(CHANNEL_SETS, "zero" if channels != "RGB" else missing_channels)
