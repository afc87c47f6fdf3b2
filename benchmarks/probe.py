"""Measure what logging the heads costs: `python -m benchmarks.probe`.

Trains quick/copy (ASEntmax, NAPE) for some steps with and without the probe of the heads and the
gradient norms of groups, both in one process and in turn. Validation is made as small as it gets
and comes more often than in quick/copy, so nothing hides the probe. CPU seconds of the process, on
one thread: those of a second one would count its waiting as work.
Before that both must have made the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.report import median_ratio, publish
from lcg.config import load_config
from lcg.diagnostics.probe import Probe, group_norms
from lcg.models.transformer import build_model
from lcg.training.data import Batches
from lcg.training.loop import train
from lcg.training.record import Metrics

LIMIT = 1.03  # training with the probe may take at most this many times as long

WORDS = [
    *("experiment=quick/copy", "trainer.accelerator=cpu", "trainer.checkpoint_every=100000"),
    *("validation.lengths=32", "validation.samples=1", "validation.monitor=32"),
    *("evaluation.after_training=false", "wandb.mode=disabled"),
]


def train_once(probed: bool, steps: int, every: int, threads: int) -> tuple[float, dict]:
    """CPU seconds of one training run, and its weights."""
    words = [f"trainer.steps={steps}", f"validation.every={every}"]
    words += [f"trainer.threads={threads}"]
    with tempfile.TemporaryDirectory() as runs, ExitStack() as without:
        config = load_config([*WORDS, *words, f"runs={runs}"])
        if not probed:
            without.enter_context(patch.object(Probe, "__call__", lambda *words: {}))
            without.enter_context(patch.object(Metrics, "measure_gradients", lambda *words: None))
        started = time.process_time()
        outcome = train(config, progress=False)
        seconds = time.process_time() - started
        if outcome.status != "finished":
            raise SystemExit(f"not timed: a run was {outcome.status}")
        path = Path(outcome.directory) / "checkpoints" / "last.ckpt"
        return seconds, torch.load(path, weights_only=True)["state_dict"]


def each_alone(repeats: int) -> dict[str, float]:
    """CPU seconds of one probe of the heads and of one set of gradient norms, medians."""
    config = load_config(WORDS)
    model, probe, batch = build_model(config), Probe(config), Batches(config, 0, 1)[0]
    model(batch["inputs"]).square().mean().backward()
    found = {}
    for name, action in (("probe", probe), ("norms", group_norms)):
        times = []
        for _ in range(repeats + 1):
            started = time.process_time()
            action(model)
            times.append(time.process_time() - started)
        found[name] = statistics.median(times[1:])
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=100, help="steps between probes")
    options = parser.parse_args(arguments)
    rest = (options.steps, options.every, options.threads)
    train_once(True, min(20, options.steps), 10, options.threads)  # imports, caches
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for round_ in range(options.rounds):
        weights = {}
        for probed in (True, False) if round_ % 2 else (False, True):
            taken, weights[probed] = train_once(probed, *rest)
            seconds[probed].append(taken)
        if not all(torch.equal(weights[True][key], value) for key, value in weights[False].items()):
            print("not timed: the probe changes the weights", file=sys.stderr)
            return 1
    ratio = median_ratio(seconds[True], seconds[False])
    alone = each_alone(repeats=20)
    step = statistics.median(seconds[False]) / options.steps
    rows = [
        [name, f"{1e3 * statistics.median(values) / options.steps:.2f}", figure, limit]
        for name, values, figure, limit in (
            ("without", seconds[False], "1", ""),
            ("with", seconds[True], f"{ratio:.3f}", f"≤ {LIMIT}"),
        )
    ]
    for name, title in (("probe", "one probe, alone"), ("norms", "gradient norms once, alone")):
        rows.append([title, f"{1e3 * alone[name]:.2f}", f"{alone[name] / step:.3f} steps", ""])
    publish(
        "probe",
        f"Training quick/copy, a probe of the heads every {options.every} steps",
        ["training", "CPU ms a step, or once", "÷ without", "limit"],
        rows,
        {"with": seconds[True], "without": seconds[False], "ratio": ratio, "limit": LIMIT}
        | {"alone": alone, "steps": options.steps, "every": options.every},
    )
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
