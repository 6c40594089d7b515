"""Channel sets: which of the planes red, green and blue a model is given, and in what way."""

from typing import Literal, get_args

ChannelSet = Literal["RGB", "RG", "GB", "RB", "R", "G", "B"]
# what becomes of the planes that are not in the set: black (three planes come), left out, or left
# out with the others squashed by a sigmoid of 0..255 (report 003)
Protocol = Literal["zero", "slice", "sigmoid"]

CHANNEL_SETS = {name: tuple(map("RGB".index, name)) for name in get_args(ChannelSet)}


def planes_given(channels: str, protocol: str) -> tuple[int, ...]:
    """Give the planes of a stored image that a model is given, black ones among them."""
    return CHANNEL_SETS["RGB" if protocol == "zero" else channels]


def tested_sets(channels: str, protocol: str, absent: str) -> dict[str, str]:
    """Give the channel sets that a model can be tested on, each with what becomes of the others.

    A model of left-out planes knows its own set alone; from any other, planes are taken away as
    `absent` says.
    """
    if protocol == "sigmoid" or (protocol == "slice" and channels != "RGB"):
        return {channels: protocol}
    return dict.fromkeys(CHANNEL_SETS, "zero" if channels != "RGB" else absent)
