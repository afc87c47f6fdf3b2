"""Signals: requests to stop, which processes receive them, and child processes that end with their
parent.

Does not import torch before a run of several processes needs it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

from lcg.ranks import is_rank_zero

NOTICE = b"\nstopping after this step; Ctrl-C again stops at once, without saving\n"
REQUESTS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None


@contextmanager
def stop_requests(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for SIGINT, SIGTERM and SIGHUP in this block; only the main thread can.

    A SIGHUP that is ignored from the start stays ignored: this is how nohup keeps a run alive.
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
def block_signals() -> Iterator[None]:
    """Start processes that never receive a stop request; this process handles it after the block.

    Ctrl-C reaches every process of a terminal, but the main process decides when the others stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have this process receive a signal when its parent dies, in any way.

    Linux only. Exits at once when the parent is dead already.
    """
    if _prctl is None:
        return
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before this was asked
        os._exit(128 + number)


class Stopped(SystemExit):
    """A stop request at a point where nothing needs to be saved."""


class StopRequest:
    """A stop request sets a flag; training finishes the current step, saves, and then stops.

    Stopping inside a step would save new weights with an old step number. A second Ctrl-C stops at
    once. `signal` is the number received, 0 if none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._group: Any = None
        self._nothing_to_save = False

    def listening(self) -> AbstractContextManager[None]:
        """Handle signals in this block."""
        return stop_requests(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Stopped for a signal in this block: a batch of a long length may take minutes."""
        self._nothing_to_save = True
        try:
            yield
        finally:
            self._nothing_to_save = False

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._nothing_to_save:
            self._nothing_to_save, self.signal = False, number
            raise Stopped(128 + number)
        if self.signal and number == signal.SIGINT:
            raise SystemExit(128 + number)
        if not self.signal and is_rank_zero():
            with suppress(OSError):  # a terminal that was closed
                os.write(2, NOTICE)  # print is not safe in a handler
        self.signal = self.signal or number

    def share(self) -> None:
        """Make the processes of the run, of which each calls this, stop at the same step."""
        import torch

        # On the CPU, so that asking never waits for a GPU.
        self._group = torch.distributed.new_group(backend="gloo")

    def asked(self) -> bool:
        """Return whether any process was asked to stop."""
        if self._group is None:
            return self.signal != 0
        import torch

        agreed = torch.tensor(self.signal)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, self._group)
        if agreed:  # else a signal that came in the meantime would be forgotten
            self.signal = int(agreed)
        return bool(agreed)
