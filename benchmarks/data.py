"""Training sequences per second on one core: `python -m benchmarks.data`.

Timed is `train_batch` from address to inputs and labels, as the data module calls it. Nothing is
timed before the sequences are found right.
"""

import argparse
import os

# One core: numpy must not find threads to use. Set before its import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time

import numpy as np

from benchmarks.report import publish
from lcg.tasks.base import IGNORE, Task
from lcg.tasks.mqmtar import MQMTAR
from lcg.tasks.sort import Sort
from lcg.tasks.streams import train_batch

BATCH = 128
REPEATS = 7
SECONDS = 0.5  # per repeat

CASES = [
    ("Sort", "32-64", Sort(symbols=32), 32, 64, 600_000),
    ("MQMTAR", "64", MQMTAR(), 64, 64, 40_000),
    ("MQMTAR", "32-64", MQMTAR(), 32, 64, 40_000),
]


def check(task: Task, shortest: int, longest: int) -> None:
    """Recompute the targets of a few batches from their inputs, one row at a time."""
    for t in range(3):
        batch = train_batch(task, 0, t, BATCH, shortest, longest)
        for tokens, labels in zip(batch.inputs, batch.labels, strict=True):
            source = list(tokens[1 : list(tokens).index(task.sep)])
            scored = list(labels[labels != IGNORE])
            expected = sorted(source) if isinstance(task, Sort) else recall(task, source)
            assert scored == [*expected, task.eos], f"{task.name}: wrong target in batch {t}"


def recall(task: MQMTAR, source: list[int]) -> list[int]:
    """The answers to an MQMTAR source: find each queried key before a pair separator."""
    k, v = task.key_length, task.value_length
    colons = [i for i, symbol in enumerate(source) if symbol == 1]
    values = {tuple(source[i - k : i]): source[i + 1 : i + 1 + v] for i in colons}
    first = len(source) - task.queries * (k + 1)
    asked = [tuple(source[i + 1 : i + 1 + k]) for i in range(first, len(source), k + 1)]
    return [symbol for key in asked for symbol in (2, *values[key])]


def rate(task: Task, shortest: int, longest: int) -> float:
    """Median over repeats of sequences per second."""
    rates, t = [], 0
    for _ in range(REPEATS):
        first, begin = t, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < SECONDS:
            train_batch(task, 0, t, BATCH, shortest, longest)
            t += 1
        rates.append((t - first) * BATCH / elapsed)
    return statistics.median(rates)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for _, _, task, shortest, longest, _ in CASES:
        check(task, shortest, longest)
    rows, data = [], []
    for name, lengths, task, shortest, longest, goal in CASES:
        measured = rate(task, shortest, longest)
        tokens = measured * task.token_length(np.arange(shortest, longest + 1)).mean()
        rows.append([f"{name}, {lengths}", f"{measured:,.0f}", f"{tokens:,.0f}", f"≥ {goal:,}"])
        data.append({"task": name, "lengths": lengths, "sequences": measured, "goal": goal})
    publish(
        "data",
        f"Training sequences per second from one core, batch {BATCH}, numpy {np.__version__}",
        ["task, lengths", "sequences/s", "tokens/s", "goal"],
        rows,
        {"batch": BATCH, "numpy": np.__version__, "rows": data},
    )


if __name__ == "__main__":
    main()
