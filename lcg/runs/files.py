"""The files of a run directory: their names, who may write them, and how a write is whole.

config.yaml        the config, every choice spelled out; users' classes by their copies in sources/
provenance.json    command, code, versions, machine
metrics.csv        what was logged while it trained
results.json       the record: selection, validation, the test ladder
checkpoints/       best.ckpt, the selected weights; last.ckpt, from which training resumes, and
                   previous.ckpt, the one before it
plots/, sources/   pictures of this run; the code of users' classes

`lcg.runs.run.Run` is how all other code asks for them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import random
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lcg.log import log
from lcg.system import require_file

CONFIG, PROVENANCE, METRICS, RECORD = (
    "config.yaml",
    "provenance.json",
    "metrics.csv",
    "results.json",
)
CHECKPOINTS, PLOTS, SOURCES = "checkpoints", "plots", "sources"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
LOCK, RECORD_LOCK = ".lock", ".results.lock"


_held: dict[Path, tuple[int, int]] = {}  # a directory: device and inode of its lock file


class Busy(RuntimeError):
    """Another process trains this run; the message is one line."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the run directory for this process; the system releases it when the process dies.

    Once the directory was removed or replaced, writing to it raises OSError.

    Raises Busy when another process holds it, OSError when it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        require_file(directory / LOCK)
        file = (directory / LOCK).open("a+")
    except OSError as error:
        room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        remedy = f"{error.strerror}; {room}choose another folder with runs=…"
        raise OSError(error.errno, remedy, str(directory)) from None
    with file:
        try:
            _take(file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            by = f"process {holder}" if holder else "another process"
            raise Busy(f"{directory} is being trained by {by}") from None
        except OSError:
            log.warning(f"{directory}: this file system has no locks; do not start the run twice")
        with suppress(OSError):  # for the message above only
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}")
            file.flush()
        place, facts = directory.resolve(), os.fstat(file.fileno())
        _held[place] = (facts.st_dev, facts.st_ino)
        try:
            yield
        finally:
            del _held[place]
            with suppress(OSError):
                file.truncate(0)


def _take(file: TextIO) -> None:
    """Lock a file. Raises BlockingIOError if another process holds it exclusively.

    Processes that only check for a lock share it for a moment, as this does: they are waited for,
    also on a busy machine.
    """
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(random.uniform(0.005, 0.02))  # two who look at each other must part


def is_held(directory: Path) -> bool:
    """Tell whether a process trains this run now."""
    try:
        require_file(directory / LOCK)
        with (directory / LOCK).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Wait for a lock file, which is created if missing, and hold it.

    A file system without locks lets everyone in.
    """
    check_held(path)
    require_file(path)
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_held(path: Path) -> None:
    """Raise OSError for a file of a directory that was removed or replaced while it was held."""
    for directory, lock in _held.items():
        if not path.resolve().is_relative_to(directory):
            continue
        with suppress(OSError):
            facts = (directory / LOCK).stat()
            if (facts.st_dev, facts.st_ino) == lock:
                continue
        raise OSError(
            errno.EBUSY,
            "was removed or replaced while this process was writing to it; "
            "nothing more was written there",
            str(directory),
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError from this block: writing to an open file names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomic(path: str | os.PathLike, content: str | bytes | Iterable[str]) -> Path:
    """Replace `path` by `content` so that a crash leaves either the old file or the new one.

    Writes a hidden temporary file in the same folder, syncs, renames, and syncs the folder, which
    is created if missing. Text is UTF-8 and may come in pieces. Raises OSError that names `path`,
    after removing the temporary file.
    """
    path = Path(path)
    check_held(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                for part in [content] if isinstance(content, str | bytes) else content:
                    file.write(part.encode() if isinstance(part, str) else part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def move_aside(path: Path) -> Path:
    """Rename a file, folder or link that cannot be used, so that another can take its place.

    Returns where it is now: `path.damaged`, or `path.damaged-2` and so on where that is taken.
    """
    aside, count = path.with_name(f"{path.name}.damaged"), 2
    while os.path.lexists(aside):
        aside, count = path.with_name(f"{path.name}.damaged-{count}"), count + 1
    os.rename(path, aside)
    return aside
