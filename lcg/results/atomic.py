"""Files that are either old or new, never half written."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Wait until nobody else is in here for the same lock file, which is made if missing.

    A file system without locks lets everybody in.
    """
    check_held(path)
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


_held: dict[Path, tuple[Path, int, int]] = {}  # a directory's lock file, its device and inode


@contextmanager
def holding(directory: Path, lock: TextIO) -> Iterator[None]:
    """Let nothing be written below `directory` once `lock`, open, is not its lock file any more."""
    facts = os.fstat(lock.fileno())
    place = directory.resolve()
    _held[place] = (place / Path(lock.name).name, facts.st_dev, facts.st_ino)
    try:
        yield
    finally:
        del _held[place]


def check_held(path: Path) -> None:
    """Raise OSError for a file of a directory that was removed or replaced while it was held."""
    for directory, (lock, device, inode) in _held.items():
        if not path.resolve().is_relative_to(directory):
            continue
        try:
            facts = lock.stat()
            same = (facts.st_dev, facts.st_ino) == (device, inode)
        except OSError:
            same = False
        if not same:
            raise OSError(
                errno.EBUSY,
                "was removed or replaced while this process was at work on it; "
                "nothing more was written there",
                str(directory),
            )


def write_atomic(path: str | os.PathLike, content: str | bytes | Iterable[str]) -> Path:
    """Replace `path` by `content` so that a crash leaves either the old file or the new one.

    Writes a hidden temporary file beside it, syncs, renames, and syncs the folder, which is created
    if missing. Text is UTF-8, and may come in pieces. Raises OSError that names `path`, after it
    has removed the temporary file.
    """
    path = Path(path)
    check_held(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str | bytes):
            content = [content]
        _replace(path, (part.encode() if isinstance(part, str) else part for part in content))
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError from in here name `path`: writing to an open file names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, content: Iterable[bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            for part in content:
                file.write(part)
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


def move_aside(path: Path) -> Path:
    """Rename a file, folder or link that cannot be used, so that another can take its place.

    Returns where it is now: `path.damaged`, or `path.damaged-2` and so on where that is taken.
    """
    aside, count = path.with_name(f"{path.name}.damaged"), 2
    while os.path.lexists(aside):
        aside, count = path.with_name(f"{path.name}.damaged-{count}"), count + 1
    os.rename(path, aside)
    return aside
