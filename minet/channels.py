"""Channel sets: which of the planes red, green and blue a model is given."""

from torch import Tensor

CHANNEL_SETS = {
    "RGB": (0, 1, 2),
    "RG": (0, 1),
    "GB": (1, 2),
    "RB": (0, 2),
    "R": (0,),
    "G": (1,),
    "B": (2,),
}


def zero_absent(images: Tensor, channel_set: str) -> Tensor:
    """Set the planes that are not in the set to 0 (black), before normalisation: (N, 3, H, W)."""
    mask = images.new_zeros(3)
    mask[list(CHANNEL_SETS[channel_set])] = 1
    return images * mask[:, None, None]
