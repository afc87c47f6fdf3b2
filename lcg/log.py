"""Lines for the person in front of the terminal, on stderr; results go to stdout.

All of them go to the logger "lcg" of the standard library. The `lcg` command prints what is logged;
a notebook or a script decides for itself what it shows. A stream that is closed or full stops
nothing: a run continues without its lines.
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
    """Make stdin, stdout and stderr usable, whatever they are when Python starts.

    One that is closed becomes the null device under its own number, so that no file opened later
    is taken for it. A character that stdout's encoding lacks is printed as a question mark.
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
    """Forgets what cannot be written: a progress bar ends no run when its terminal is closed."""

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
    """Spell out what a terminal would obey: names in a run's files may come from anybody."""
    return text.translate(SPELLED)


def discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, to the null device.

    Python would complain of it once more when it closes the stream.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class _Lines(logging.Handler):
    """Prints messages as they are on stderr.

    A run of several processes says a thing once; an error is printed by each that has it.
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
    """Show what is logged on stderr, there alone, as the `lcg` command and its processes do."""
    log.addHandler(_lines)
    log.setLevel(logging.INFO)
    log.propagate = False
