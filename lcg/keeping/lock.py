"""Who holds a run directory: one process at a time, until it is done or dies."""

from __future__ import annotations

import fcntl
import os
import platform
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lcg.results.atomic import holding
from lcg.speaking import say


class Busy(RuntimeError):
    """Another process trains this run; the message is one line."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the run directory for this process alone; the system lets go when it dies.

    Inside, nothing is written to it once it has been removed or replaced: that raises OSError.

    Raises Busy when another process holds it, OSError when it cannot be written.
    """
    with _lock_file(directory) as file:
        try:
            _take(file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            by = f"process {holder}" if holder else "another process"
            raise Busy(f"{directory} is being trained by {by}") from None
        except OSError:
            say(f"{directory}: this file system has no locks; do not start the run twice")
        with suppress(OSError):  # for the message above only
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}")
            file.flush()
        try:
            with holding(directory, file):
                yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _lock_file(directory: Path) -> TextIO:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return (directory / ".lock").open("a+")
    except OSError as error:
        remedy = f"{error.strerror}; make room, or choose another folder with runs=…"
        raise OSError(error.errno, remedy, str(directory)) from None


def _take(file: TextIO) -> None:
    """Lock a file. Raises BlockingIOError where another process has it for itself.

    Those who only look whether somebody has share it for a moment, as this does: they are waited
    for, however long a busy machine keeps them.
    """
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(random.uniform(0.005, 0.02))  # two who look at each other must part
