"""Free memory of the host, within the limits of a container, and of a GPU."""

from collections.abc import Iterator
from pathlib import Path

import torch

_MEMINFO, _CGROUPS, _OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# files of cgroup v2 and v1: limit, usage, and the key of the cache that can be reclaimed
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; of a CPU, at most what a container's limit leaves."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_free_bytes(_MEMINFO, _CGROUPS, _OWN)


def host_free_bytes(meminfo: Path, cgroups: Path, own: Path) -> int:
    """Return the memory available without swapping, according to the kernel and the cgroups.

    `cgroups` is their mount point, `own` the file that names those of this process.
    """
    lines = meminfo.read_text().splitlines()
    available = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return min([1024 * int(available), *_left_by_limits(cgroups, own)])


def _left_by_limits(cgroups: Path, own: Path) -> Iterator[int]:
    """Yield what is left of the limit of each cgroup that contains this process and has one."""
    for line in own.read_text().splitlines() if own.exists() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from _left_in(cgroups, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _left_in(cgroups / "memory", path, _V1)


def _left_in(mount: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    folder = mount / path.strip("/")
    for group in (folder, *folder.parents):
        limit, used, stat = group / names[0], group / names[1], group / "memory.stat"
        # a container sees its own group as the mount, whatever its path is outside
        if limit.exists() and stat.exists() and (max_bytes := limit.read_text().strip()) != "max":
            reclaimable = dict(line.split() for line in stat.read_text().splitlines())[names[2]]
            yield max(0, int(max_bytes) - int(used.read_text()) + int(reclaimable))
        if group == mount:
            return
