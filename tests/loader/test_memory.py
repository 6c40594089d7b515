"""How much memory is free: what the kernel says, less what a container's limits take."""

import os
from pathlib import Path

import pytest
import torch

from minet.loader.memory import free_bytes, host_free_bytes

MIB = 1 << 20


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """Give what the kernel says of 1,000 MiB that are free."""
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:  9999999 kB\nMemFree: 5 kB\nMemAvailable: {1000 * 1024} kB\n")
    return path


def group(folder: Path, version: int, limit: object, used_mib: int, unread_mib: int) -> None:
    """Write a control group's files as the kernel shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used_mib * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {unread_mib * MIB}\n")


def test_without_limits_it_is_what_the_kernel_says(meminfo: Path, tmp_path: Path) -> None:
    assert host_free_bytes(meminfo, tmp_path / "none", tmp_path / "none") == 1000 * MIB


def test_a_limit_of_version_2_counts_with_the_cache_that_nobody_reads(
    meminfo: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.write_text("0::/jobs/7\n")
    group(tmp_path / "groups/jobs/7", 2, 600 * MIB, used_mib=500, unread_mib=100)
    assert host_free_bytes(meminfo, tmp_path / "groups", own) == 200 * MIB


def test_the_nearest_limit_counts_though_it_be_of_a_group_around(
    meminfo: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.write_text("0::/jobs/7\n")
    group(tmp_path / "groups/jobs/7", 2, "max", used_mib=1, unread_mib=0)
    group(tmp_path / "groups/jobs", 2, 300 * MIB, used_mib=50, unread_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "groups", own) == 250 * MIB


def test_a_container_sees_its_own_group_as_the_mount(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/docker/abcdef\n")
    group(tmp_path / "groups", 2, 100 * MIB, used_mib=20, unread_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "groups", own) == 80 * MIB


def test_a_limit_of_version_1(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/\n4:cpu,memory:/jobs/7\n0::/\n")
    group(tmp_path / "groups/memory/jobs/7", 1, 400 * MIB, used_mib=450, unread_mib=100)
    group(tmp_path / "groups/memory", 1, (1 << 63) - 4096, used_mib=1, unread_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "groups", own) == 50 * MIB


def test_more_used_than_the_limit_is_nothing_free(meminfo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    group(tmp_path / "groups", 2, 100 * MIB, used_mib=120, unread_mib=0)
    assert host_free_bytes(meminfo, tmp_path / "groups", own) == 0


def test_of_this_machine() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_bytes(torch.device("cpu")) < total


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_of_a_gpu() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    before = free_bytes(torch.device("cuda"))
    held = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    assert held.numel() <= before - free_bytes(torch.device("cuda"))
    assert before < total
