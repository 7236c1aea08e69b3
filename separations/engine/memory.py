"""Measure available memory (machine and cgroups), and estimate what a separation needs."""

import contextlib
import sys
from pathlib import Path

import psutil

from separations.engine.weights.store import ModelInfo

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
MEGABYTE = 1_000_000
# From peaks of htdemucs, whose weights are float16 on disk, float32 in memory, both while loading.
ENGINE_BYTES = 1_200 * MEGABYTE
BYTES_A_WEIGHT_BYTE = 3
BYTES_A_PARALLEL_CHUNK = 500 * MEGABYTE
# A cgroup's files for limit and use, and the field for the part of its use that is file cache.
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def estimated_need(model: ModelInfo, parallel_chunks: int) -> int:
    """Bytes that a separation is expected to need, if none was measured yet."""
    more = max(0, parallel_chunks - 1) * BYTES_A_PARALLEL_CHUNK
    return ENGINE_BYTES + BYTES_A_WEIGHT_BYTE * model.bytes + more


def total() -> int:
    """Bytes of memory that this process may use at most: the machine's, or its cgroup's limit."""
    machine: int = psutil.virtual_memory().total
    return min([machine, *(limit for limit, _used in _cgroups())])


def available() -> int:
    """Bytes that are free now, on the machine and in every cgroup above this process."""
    machine: int = psutil.virtual_memory().available
    return max(0, min([machine, *(limit - used for limit, used in _cgroups())]))


def _cgroups() -> list[tuple[int, int]]:
    """Limit and use in bytes of each cgroup with a limit that this process is in."""
    found = []
    for names, mount, path in _homes():
        limit_name, used_name, cache_name = names
        # From its own cgroup up; in a container its own may be what is mounted as the topmost.
        for folder in [mount / path, *(mount / path).parents]:
            if not folder.is_relative_to(mount):
                break
            with contextlib.suppress(OSError, ValueError):  # absent, or "max"
                limit = int((folder / limit_name).read_text())
                used = int((folder / used_name).read_text())
                found.append((limit, used - _statistic(folder / "memory.stat", cache_name)))
    return found


def _homes() -> list[tuple[tuple[str, str, str], Path, str]]:
    """Names of the files, mount point and path of this process's memory cgroups."""
    homes = []
    with contextlib.suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            relative = path.lstrip("/")
            if controllers == "":
                homes += [
                    (VERSION_2, CGROUPS, relative),
                    (VERSION_2, CGROUPS / "unified", relative),
                ]
            elif "memory" in controllers.split(","):
                homes.append((VERSION_1, CGROUPS / "memory", relative))
    return homes


def _statistic(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def out_of_memory_kills() -> int:
    """How many processes of this machine the kernel has killed for memory; 0 where unknown."""
    try:
        return _statistic(PROC / "vmstat", "oom_kill")
    except OSError:
        return 0


def resident(pid: int) -> int:
    """Bytes of memory that a process uses now, 0 if it has ended.

    Without pages backed by files (the song, libraries), which the system can drop.
    """
    try:
        info = psutil.Process(pid).memory_info()
        return int(info.rss - getattr(info, "shared", 0))
    except psutil.Error:
        return 0


# For the engine process itself


def reset_peak() -> None:
    """Have `peak` count from now on, if the system supports it."""
    with contextlib.suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")  # proc(5): resets the high-water mark


def peak() -> int:
    """The peak of this process's memory, in bytes."""
    with contextlib.suppress(OSError):
        for line in (PROC / "self" / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not everywhere

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def offer_to_out_of_memory_killer() -> None:
    """Have the kernel kill this process before others when memory runs out, as it is replaced."""
    with contextlib.suppress(OSError):
        (PROC / "self" / "oom_score_adj").write_text("500")
