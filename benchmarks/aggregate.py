"""`lcg table` over 1,000 run directories, each with 60 evaluated lengths: seconds, start to end.

    python -m benchmarks.aggregate [--runs 1000] [--rounds 3] [--profile]

The directories are made up in a temporary folder, as training leaves them but for the weights; the
time is that of the command in a process of its own, with the start of Python in it.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import json
import pstats
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import publish
from lcg.cli import main as command
from lcg.runs.record import Cell, RunRecord, Selection, Training, Validation

CELLS, SAMPLES, STEPS, BOUND = 60, 1000, 20_000, 10.0
ATTENTIONS = ("softmax", "ssmax", "entmax15", "topk", "asentmax")
POSITIONS = ("nape", "rope")
TASKS = ("copy", "sort")
RATES = (0.0005, 0.001, 0.002, 0.004, 0.008)
FORMATS = ("markdown", "csv", "json")


def make_run(folder: Path, index: int) -> None:
    """One run directory; tasks, methods, rates and seeds are run through in this order."""
    rest, choice = index, []
    for values in (TASKS, ATTENTIONS, POSITIONS, RATES):
        rest, which = divmod(rest, len(values))
        choice.append(values[which])
    (task, attention, position, lr), seed = choice, rest
    rng = random.Random(index)
    group = f"{task}-{attention}-{position}"
    ladder = tuple(_cell(rng, 16 * (i + 1)) for i in range(CELLS))
    record = RunRecord(
        run=f"{group}-s{seed}-{index:08x}",
        hash=f"{index:08x}",
        group=group,
        labels={"task": task, "attention": attention, "position": position},
        settings={
            "seed": seed,
            "lr": lr,
            "steps": STEPS,
            "batch_size": 64,
            "train_lengths": [8, 32],
            "parameters": 123456,
        },
        training=Training("finished", STEPS, seconds=612.4, device="cpu", final_loss=0.01),
        selection=Selection(STEPS, "val/len_128/exact_match", rng.random(), rng.random()),
        validation={n: Validation(rng.random(), rng.random()) for n in (32, 64, 128)},
        ladder=ladder,
        task={"name": task, "symbols": 32},
    )
    place = folder / record.run
    record.save(place)
    (place / "config.yaml").write_text(f"task: {{name: {task}, symbols: 32}}\nseed: {seed}\n" * 40)
    row = ",".join(f"{rng.random():.6f}" for _ in range(20))
    (place / "metrics.csv").write_text(f"{row}\n" * 400)
    for name in ("checkpoints", "plots"):
        (place / name).mkdir()


def _cell(rng: random.Random, length: int) -> Cell:
    bits = (1 << SAMPLES) - 1 if length <= 32 else rng.getrandbits(SAMPLES)
    return Cell(
        length=length,
        samples=SAMPLES,
        seed=0,
        step=STEPS,
        correct=bits.bit_count(),
        tokens=2 * length + 3,
        token_accuracy=rng.random(),
        prefix=rng.random(),
        close_calls=rng.randrange(100),
        seconds=round(10 * rng.random(), 3),
        outcomes=f"{bits:0{SAMPLES // 4}x}",
    )


def seconds(folder: Path, form: str) -> tuple[float, float]:
    """Wall time and processor time of one `lcg table` in a process of its own."""
    start, before = time.perf_counter(), _processor_seconds()
    words = [sys.executable, "-m", "lcg", "table", str(folder), "--format", form]
    done = subprocess.run(words, capture_output=True, check=True)
    assert len(done.stdout) > 1000
    return time.perf_counter() - start, _processor_seconds() - before


def _processor_seconds() -> float:
    """CPU seconds of all processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def profile(folder: Path) -> str:
    """Print the time that each part of the JSON table takes."""
    profiler = cProfile.Profile()
    with contextlib.redirect_stdout(io.StringIO()):
        profiler.runcall(command, ["table", str(folder), "--format", "json"])
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(25)
    return text.getvalue()


def check(folder: Path, runs: int) -> None:
    """Every run must be in what is timed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(["table", str(folder), "--format", "json"]) == 0
    groups = json.loads(out.getvalue())["groups"]
    assert sum(len(group["runs"]) for group in groups) == runs
    assert all(len(run["ladder"]) == CELLS for group in groups for run in group["runs"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(options.runs):
            make_run(folder, index)
        if options.profile:
            print(profile(folder))
            return 0
        check(folder, options.runs)
        times = {form: [seconds(folder, form) for _ in range(options.rounds)] for form in FORMATS}
    columns = {form: list(zip(*found, strict=True)) for form, found in times.items()}
    medians = {form: statistics.median(wall) for form, (wall, _) in columns.items()}
    rows = [
        [form, f"{medians[form]:.2f} s", f"{max(wall):.2f} s", f"{statistics.median(cpu):.2f} s"]
        for form, (wall, cpu) in columns.items()
    ]
    title = f"`lcg table` of {options.runs:,} runs with {CELLS} lengths each (bound: {BOUND:g} s)"
    data = {"runs": options.runs, "cells": CELLS, "samples": SAMPLES, "seconds": times}
    publish("aggregate", title, ["format", "median", "slowest", "processor"], rows, data)
    return 0 if max(medians.values()) <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
