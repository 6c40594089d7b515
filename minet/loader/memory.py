"""What this process may use of the machine's memory, of the host's or of a GPU's."""

from collections.abc import Iterator
from pathlib import Path

import torch

_MEMINFO, _GROUPS, _OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# of control groups, version 2 and 1: limit, use, and what of the use is cache that nobody reads
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(device: torch.device) -> int:
    """Give the memory that is free on a device; on a CPU, what a container's limit leaves of it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_free_bytes(_MEMINFO, _GROUPS, _OWN)


def host_free_bytes(meminfo: Path, groups: Path, own: Path) -> int:
    """Give what programs can have without swapping, as the kernel and the control groups say.

    `groups` is where control groups are mounted, `own` names those of this process.
    """
    lines = meminfo.read_text().splitlines()
    available = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return min([1024 * int(available), *_left_by_limits(groups, own)])


def _left_by_limits(groups: Path, own: Path) -> Iterator[int]:
    """Of each control group around this process that has a limit, what is left of it."""
    for line in own.read_text().splitlines() if own.exists() else ():
        number, controllers, place = line.split(":", 2)
        if number == "0":
            yield from _left_in(groups, place, _V2)
        elif "memory" in controllers.split(","):
            yield from _left_in(groups / "memory", place, _V1)


def _left_in(mount: Path, place: str, names: tuple[str, str, str]) -> Iterator[int]:
    folder = mount / place.strip("/")
    for group in (folder, *folder.parents):
        limit, used, stat = group / names[0], group / names[1], group / "memory.stat"
        # a container sees its own group as the mount, whatever its place is called outside
        if limit.exists() and stat.exists() and (most := limit.read_text().strip()) != "max":
            unread = dict(line.split() for line in stat.read_text().splitlines())[names[2]]
            yield max(0, int(most) - int(used.read_text()) + int(unread))
        if group == mount:
            return
