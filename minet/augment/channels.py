"""Channel sets: which of the planes red, green and blue a model is given, and in what way."""

from typing import Literal, get_args

ChannelSet = Literal["RGB", "RG", "GB", "RB", "R", "G", "B"]
# what becomes of the planes that are not in the set: black (three planes come), left out, or left
# out with the others squashed by a sigmoid of 0..255 (report 003)
ChannelMode = Literal["zero", "slice", "sigmoid"]

CHANNEL_SETS = {name: tuple(map("RGB".index, name)) for name in get_args(ChannelSet)}


def input_channels(channels: str, channel_mode: str) -> tuple[int, ...]:
    """Give the planes of a stored image that a model is given, black ones among them."""
    return CHANNEL_SETS["RGB" if channel_mode == "zero" else channels]


def tested_sets(channels: str, channel_mode: str, missing_channels: str) -> dict[str, str]:
    """Give the channel sets that a model can be tested on, each with what becomes of the others.

    A model of left-out planes knows its own set alone; from any other, planes are taken away as
    `missing_channels` says.
    """
    if channel_mode == "sigmoid" or (channel_mode == "slice" and channels != "RGB"):
        return {channels: channel_mode}
    return dict.fromkeys(CHANNEL_SETS, "zero" if channels != "RGB" else missing_channels)
