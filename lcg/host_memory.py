"""How much memory this machine has to give, as the system says; without torch."""

from __future__ import annotations

from pathlib import Path

ASSUMED = 8 * 2**30  # where the system does not say: a small laptop
UNLIMITED = 2**62


def host_memory() -> int:
    """Bytes that can be had without swapping, within the limit of a container."""
    return min(_meminfo(), _cgroup())


def _meminfo() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no such file outside Linux
        return ASSUMED
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _cgroup() -> int:
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        inactive = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return UNLIMITED
    if limit == "max":
        return UNLIMITED
    return int(limit) - used + int(inactive.get("inactive_file", 0))
