"""Logging to stderr; results go to stdout.

All messages go to the logger "lcg" of the standard library. The `lcg` command prints them; a
notebook or a script decides what it shows. A closed or full stream does not stop a run.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TextIO

from lcg.ranks import is_rank_zero

log = logging.getLogger("lcg")


def open_streams() -> None:
    """Make stdin, stdout and stderr usable in any state in which Python starts.

    A closed stream becomes the null device under its own number, so that no file opened later takes
    its number. A character that stdout's encoding lacks is printed as a question mark.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    if type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = _Patient(sys.stderr)


class _Patient(io.TextIOWrapper):
    """A stream that drops what cannot be written: a closed terminal must not end a run."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # which would close the file if nobody held it
        super().__init__(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            discard(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            discard(self)


# What a terminal obeys, or what hides the order of characters; not line ends and tabs.
COMMANDS = [*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F)]
COMMANDS += [*range(0x2066, 0x206A), *range(0xD800, 0xE000), 0x2028, 0x2029]
SPELLED = {number: ascii(chr(number))[1:-1] for number in COMMANDS}


def plain(text: str) -> str:
    """Escape control characters: names in a run's files may come from anyone."""
    return text.translate(SPELLED)


def discard(stream: TextIO) -> None:
    """Redirect a stream, with the data it still buffers, to the null device.

    Otherwise Python reports the error again when it closes the stream.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class _Lines(logging.Handler):
    """Prints messages unchanged on stderr.

    In a run of several processes only the main process prints messages; each process prints its
    errors.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or is_rank_zero()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(plain(record.getMessage()), file=sys.stderr, flush=True)
        except OSError:
            discard(sys.stderr)


_lines = _Lines()


def log_to_stderr() -> None:
    """Show logged messages on stderr only, as the `lcg` command and its processes do."""
    log.addHandler(_lines)
    log.setLevel(logging.INFO)
    log.propagate = False
