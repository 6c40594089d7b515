"""Free memory: that of the kernel, within the limits of the cgroups."""

import os
from pathlib import Path

import pytest
import torch

from minet.loader.memory import free_bytes, host_free_bytes

MIB = 1 << 20


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """Return the kernel's file with 1,000 MiB available."""
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:  9999999 kB\nMemFree: 5 kB\nMemAvailable: {1000 * 1024} kB\n")
    return path


def write_cgroup(
    folder: Path, version: int, limit: object, used_mib: int, reclaimable_mib: int
) -> None:
    """Write the files of a cgroup as the kernel shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used_mib * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {reclaimable_mib * MIB}\n")


def test_without_limits_it_is_the_memory_available_to_the_kernel(
    meminfo: Path, tmp_path: Path
) -> None:
    assert host_free_bytes(meminfo, tmp_path / "none", tmp_path / "none") == 1000 * MIB


def test_a_limit_of_version_2_counts_inactive_cache_as_free(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/jobs/7\n")
    write_cgroup(tmp_path / "cgroups/jobs/7", 2, 600 * MIB, used_mib=500, reclaimable_mib=100)
    assert host_free_bytes(meminfo, tmp_path / "cgroups", own) == 200 * MIB


def test_the_limit_of_a_parent_cgroup_counts(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/jobs/7\n")
    write_cgroup(tmp_path / "cgroups/jobs/7", 2, "max", used_mib=1, reclaimable_mib=0)
    write_cgroup(tmp_path / "cgroups/jobs", 2, 300 * MIB, used_mib=50, reclaimable_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "cgroups", own) == 250 * MIB


def test_a_container_sees_its_own_cgroup_as_the_mount(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/docker/abcdef\n")
    write_cgroup(tmp_path / "cgroups", 2, 100 * MIB, used_mib=20, reclaimable_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "cgroups", own) == 80 * MIB


def test_a_limit_of_version_1_counts(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/\n4:cpu,memory:/jobs/7\n0::/\n")
    write_cgroup(
        tmp_path / "cgroups/memory/jobs/7", 1, 400 * MIB, used_mib=450, reclaimable_mib=100
    )
    write_cgroup(tmp_path / "cgroups/memory", 1, (1 << 63) - 4096, used_mib=1, reclaimable_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "cgroups", own) == 50 * MIB


def test_usage_above_the_limit_leaves_nothing(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    write_cgroup(tmp_path / "cgroups", 2, 100 * MIB, used_mib=120, reclaimable_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "cgroups", own) == 0


def test_free_memory_of_this_machine_is_plausible() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_bytes(torch.device("cpu")) < total


@pytest.mark.gpu
def test_allocation_on_a_gpu_reduces_its_free_memory() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    before = free_bytes(torch.device("cuda"))
    held = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    assert held.numel() <= before - free_bytes(torch.device("cuda"))
    assert before < total
