"""The processes of a run: the first one keeps the books, does the talking and hears signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def is_first_process() -> bool:
    """Whether this is the process that keeps the books; Lightning starts the others for DDP."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def say(text: str) -> None:
    """A line for the person in front of the terminal, once however many processes there are.

    Results go to stdout, this does not.
    """
    if is_first_process():
        print(text, file=sys.stderr, flush=True)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started in here never hear SIGINT and SIGTERM, this one answers them afterwards.

    Ctrl-C reaches every process of a terminal, but the first one decides when the others stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
