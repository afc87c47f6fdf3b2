"""Available memory of this machine, and errors of its storage; without torch."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

ASSUMED = 8 * 2**30  # where the system does not say: a small laptop
UNLIMITED = 2**62


def host_memory() -> int:
    """Return the bytes available without swapping, within the limit of a container."""
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


def require_file(path: Path) -> None:
    """Raise OSError for a pipe, socket or device, on which opening may block forever."""
    try:
        mode = path.stat().st_mode
    except OSError:  # opening it says more
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


NAMES = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ESTALE", "ENXIO")
NUMBERS = {getattr(errno, name) for name in NAMES if hasattr(errno, name)}
# What libraries say that do not raise OSError: SQLite, and torch of shared memory.
PHRASES = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    os.strerror(errno.ENOSPC): errno.ENOSPC,
    os.strerror(errno.EDQUOT): errno.EDQUOT,
}


def is_storage_error(error: BaseException) -> bool:
    """Tell an error of the storage from an error of the program."""
    return isinstance(error, OSError) and error.errno in NUMBERS


def storage_error(error: BaseException, path: Path) -> OSError | None:
    """Return the storage error that caused an error, with its file name, or `path` if it has none.

    None if there is no such cause.
    """
    behind: BaseException | None = error
    while behind is not None:
        if is_storage_error(behind):
            return OSError(behind.errno, behind.strerror, str(behind.filename or path))
        for phrase, number in PHRASES.items():
            if phrase in str(behind):
                return OSError(number, os.strerror(number), str(path))
        behind = behind.__cause__
    return None


def tells_storage_error(line: str) -> bool:
    """Tell whether a line printed by another process reports a storage error."""
    return any(phrase in line for phrase in (*map(os.strerror, NUMBERS), *PHRASES))
