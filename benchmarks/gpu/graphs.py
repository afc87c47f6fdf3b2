"""Calls on a CUDA device as graphs: what the device does, without the Python that asks for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

WARM, ENOUGH = 3, 2.0
"""Calls before one is recorded: they compile, tune, take memory. Fewer after so many seconds."""
LEAST = 5e-3
"""Seconds that one timed sample lasts at least: short calls are run several times in it."""
Call = Callable[[], Any]


class Unready(Exception):
    """A call that cannot be timed, with the reason."""


def recorded(name: str, call: Call, capture: bool) -> Call:
    """The call, ready to be timed: as a graph, where it can be one and `capture` is wanted.

    Raises Unready where it fails, or memory is short.
    """
    stream, before = torch.cuda.Stream(), torch.cuda.current_stream()
    try:
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            start = time.perf_counter()
            for _ in range(WARM):
                call()
                torch.cuda.synchronize()
                if time.perf_counter() - start > ENOUGH:
                    break
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        raise Unready("out of memory") from None
    except Exception as error:  # peers have errors of their own
        raise Unready(_short(error)) from error
    if not capture:
        return call
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
        return graph.replay
    except torch.cuda.OutOfMemoryError:
        raise Unready("out of memory") from None
    except Exception as error:
        torch.cuda.set_stream(before)  # a failed recording leaves its own
        print(f"{name} is no CUDA graph, timed with its Python: {_short(error)}", file=sys.stderr)
        return call


def sampled(call: Call, synchronize: Callable[[], None]) -> tuple[Call, int, float]:
    """The call as often as fills LEAST, waited for; how often that is, and seconds of one."""
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    once = time.perf_counter() - start
    times = max(1, int(LEAST / once))

    def sample() -> None:
        for _ in range(times):
            call()
        synchronize()

    return sample, times, once


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
