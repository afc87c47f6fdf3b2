"""The processes of a run: whether they find each other, and which of them hear signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NODE_VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def check_nodes(nodes: int) -> None:
    """Raise ValueError when this process cannot find the other nodes of its run."""
    missing = [name for name in NODE_VARIABLES if not os.environ.get(name)]
    if nodes > 1 and missing:
        raise ValueError(
            f"trainer.nodes={nodes} needs {', '.join(missing)} in the environment of each node: "
            "which of them it is, from 0, and where node 0 listens"
        )
    rank = os.environ.get("NODE_RANK", "0")
    if not rank.isdigit() or int(rank) >= nodes:
        raise ValueError(f"NODE_RANK={rank} is none of the {nodes} nodes of trainer.nodes={nodes}")


@contextmanager
def stop_requests(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `handler` in here, in the main thread; others cannot have any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


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
