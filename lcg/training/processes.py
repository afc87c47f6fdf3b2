"""The processes of a run: which of them hear signals, and that none outlives the first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

REQUESTS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None


@contextmanager
def stop_requests(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP call `handler` in here, in the main thread; others have none.

    A SIGHUP that is ignored from the start stays so: that is how nohup keeps a run going.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [n for n in REQUESTS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {n: signal.signal(n, handler) for n in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started in here never hear a request to stop, this one answers them afterwards.

    Ctrl-C reaches every process of a terminal, but the first one decides when the others stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have this process get a signal when its parent dies, however that happens.

    Linux alone can do that. Exits at once when the parent is dead already.
    """
    if _prctl is None:
        return
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before this was asked
        os._exit(128 + number)
