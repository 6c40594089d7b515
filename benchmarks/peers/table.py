"""All competitors by group, in the order of their measurement."""

from benchmarks.peers import containers, ffcv_loader, limits, ours, spdl_loader, torch_loaders
from benchmarks.peers.competitor import Competitor

GROUPS: dict[str, dict[str, Competitor]] = {
    "prepare": {
        **limits.PREPARE,
        **ours.PREPARE,
        **torch_loaders.PREPARE,
        **ffcv_loader.PREPARE,
    },
    "read jpg": {
        **limits.READ_JPG,
        **ours.READ_JPG,
        **ffcv_loader.READ_JPG,
        **torch_loaders.READ_JPG,
        **containers.READ_JPG,
        **spdl_loader.READ_JPG,
    },
    "read raw": {
        **limits.READ_RAW,
        **ours.READ_RAW,
        **ffcv_loader.READ_RAW,
        **torch_loaders.READ_RAW,
    },
}
