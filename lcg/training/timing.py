"""Time a few steps of runs in a separate process, which is killed when its time is up.

So the estimate arrives in time for any model, and nothing here imports torch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

from lcg.config import Config, load_config
from lcg.log import log, log_to_stderr
from lcg.text import duration
from lcg.training.estimate import FIRST_STEP, Projection, as_text

BUDGET = 20.0  # seconds to import torch and to measure
LEAST = 8.0  # of them to measure, however long imports take


def project(config: Config, overrides: list[str]) -> str:
    """Return the estimate of a run, as text. Raises ValueError when its steps fail."""
    (projection,) = time_runs([overrides])
    return as_text(config, projection)


def time_runs(
    runs: Sequence[list[str]],
    environment: Mapping[str, str] | None = None,
    seconds: float = BUDGET,
) -> list[Projection]:
    """Measure runs, given by their overrides, one after the other in one process.

    The process gets `environment`, and is killed after `seconds`, or after LEAST seconds of
    measuring if imports take long. Measurements not done by then are missing, and so are runs not
    begun.

    Raises ValueError when a run cannot be created.
    """
    log.info(f"timing a few steps, for at most {duration(seconds)} …")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, runs, dict(environment or {}), seconds)
    process = context.Process(target=_measure_and_send, args=arguments)
    process.start()
    sender.close()
    projections: dict[int, Projection] = {}
    heard = time.monotonic()
    try:
        with suppress(EOFError):
            while True:
                message = receiver.recv()
                heard = time.monotonic()
                if isinstance(message, str):
                    raise ValueError(message)
                projections |= message
        process.join()
    finally:
        process.kill()
        process.join()
    results = list(projections.values())
    if process.exitcode:
        _note_the_end(results, -process.exitcode, time.monotonic() - heard)
    return results


def _note_the_end(results: list[Projection], number: int, waited: float) -> None:
    """Record what the last run was doing when the process was killed by a signal."""
    if not results:
        raise ValueError(f"timing steps failed: the process ended with {-number}")
    last = results[-1]
    if number == signal.SIGALRM:
        last.waited = waited if last.doing == FIRST_STEP else 0.0
        last.notes.append(f"Timing ran out of time {last.doing}, after {duration(waited)} of it.")
    else:
        reason = f"with signal {number}, most likely for lack of memory"
        last.notes.append(f"The system ended the timing {last.doing}, {reason}.")


def _measure_and_send(
    sender, runs: Sequence[list[str]], environment: dict[str, str], seconds: float
) -> None:
    """Send {i: measurements of run i} whenever there are new ones, or an error as text."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.update(environment)
    log_to_stderr()  # as the process that started it
    os.dup2(2, 1)  # what a user's class prints is no result
    started = time.perf_counter()
    try:
        from lcg.training.measurement import measure

        startup = time.perf_counter() - started
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        left = max(LEAST, seconds - startup)
        signal.setitimer(signal.ITIMER_REAL, left)
        end = time.perf_counter() + left
        for i, overrides in enumerate(runs):
            share = (end - time.perf_counter()) / (len(runs) - i)
            for projection in measure(load_config(overrides), share):
                projection.startup = startup
                sender.send({i: projection})
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Exception as error:
        if not isinstance(error, ValueError):
            traceback.print_exc()
        sender.send(" ".join(str(error).split()) or type(error).__name__)
