"""Whole models: training of Sort in the loop of `lcg train`, and the forward pass of MQMTAR."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.plan import Plan
from benchmarks.gpu.results import Results, milliseconds
from benchmarks.report import median_ratio, time_in_turn
from lcg.config import load_config
from lcg.evaluation.evaluate import load_model
from lcg.evaluation.scoring import score_teacher_forcing, scored_positions
from lcg.models.transformer import build_model
from lcg.runs.run import Run
from lcg.tasks.streams import eval_batch
from lcg.training.loop import train


def sort(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """Steps per second of `lcg train` on the authors' Sort model, logging and all."""
    for precision in plan.precisions:
        found, compiled = {}, True
        for mode in ("auto", "none"):
            said = io.StringIO()
            try:
                with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
                    outcome = train(sort_config(plan, precision, mode, folder), progress=False)
                    found[mode] = statistics.median(list(speeds(outcome.directory))[1:])
            finally:
                print(said.getvalue(), end="", file=sys.stderr, flush=True)
            compiled &= "cannot compile" not in said.getvalue()
        name = f"Sort, ASEntmax, {precision}" + ("" if compiled else ", could not be compiled")
        times = [f"{found[mode]:.0f} steps/s" for mode in ("auto", "none")]
        ratio = f"{found['auto'] / found['none']:.2f}"
        data = {"steps_per_second": found, "compiled": compiled}
        results.add(name, [times[0], "uncompiled", times[1], ratio, "≥ 300 steps/s"], data)
    return 0


def sort_config(plan: Plan, precision: str, mode: str, folder: str) -> Any:
    words = ["experiment=repo/sort", f"runs={folder}", f"trainer.compile={mode}"]
    words += [f"trainer.precision={precision}", f"trainer.steps={plan.steps}"]
    words += [f"trainer.log_every={plan.steps // 5}", f"validation.every={plan.steps}"]
    words += ["validation.samples=8", "evaluation.after_training=false"]
    words += ["wandb.mode=disabled", "trainer.checkpoint_every=100000", *plan.words]
    return load_config(words)


def speeds(directory: Path) -> Iterator[float]:
    """Steps per second, row by row; the first are slow, as torch compiles."""
    with (directory / "metrics.csv").open() as lines:
        for row in csv.DictReader(lines):
            if row["train/steps_per_second"]:
                yield float(row["train/steps_per_second"])


def model(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """The MQMTAR model: what it says as with reference, then times."""
    config, models = mqmtar(plan, options.run)
    for length in plan.climbed:
        wrong = disagreement(plan, config, models, length)
        if wrong:
            print(f"not timed: MQMTAR at {length}: {wrong}", file=sys.stderr)
            return 1
    kind = "untrained" if options.run is None else options.run.name
    for length in sorted({plan.blockwise, max(plan.climbed[-1], min(65536, plan.lengths[-1]))}):
        inputs, labels = sequence(plan, config, length)
        peers = ("triton", "blockwise") if length <= plan.blockwise else ("triton",)

        def scored(name: str, inputs: Tensor = inputs, labels: Tensor = labels) -> None:
            score_teacher_forcing(models[name], inputs, labels)  # reads results: no CUDA graph
            plan.synchronize()

        functions = {name: lambda name=name: scored(name) for name in peers}
        seconds = time_in_turn(functions, min(options.rounds, 3))
        name = f"MQMTAR model, {kind}, forward, {inputs.shape[1]} tokens (nominal {length})"
        row = [milliseconds(seconds["triton"]), "", "", "", ""]
        if "blockwise" in seconds:
            ratio = median_ratio(seconds["blockwise"], seconds["triton"])
            row[1:4] = ["blockwise", milliseconds(seconds["blockwise"]), f"{ratio:.2f}"]
        results.add(name, row, {"seconds": seconds})
    return 0


def mqmtar(plan: Plan, run: Path | None) -> tuple[Any, dict[str, Any]]:
    """Its config, and the model by backend, with the same weights."""
    models = {}
    for backend in ("triton", "blockwise", "reference"):
        if run is None:
            own = (word for word in plan.words if word.startswith("model."))
            config = load_config(["experiment=paper/mqmtar", *own])
        else:
            config = Run(run).config
        config.attention.backend = backend
        if run is None:
            models[backend] = build_model(config).to(plan.device).eval()  # from the same seed
        else:
            models[backend] = load_model(run, config, plan.device)[0].eval()
    return config, models


def sequence(plan: Plan, config: Any, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of one test sample."""
    batch = eval_batch(config.task, 0, "test", length, 0, 1)
    inputs, labels = (torch.from_numpy(x).to(plan.device) for x in (batch.inputs, batch.labels))
    return inputs, labels


@torch.no_grad()
def disagreement(plan: Plan, config: Any, models: dict[str, Any], length: int) -> str | None:
    """Return the difference between triton and reference in logits or verdicts, or None."""
    inputs, labels = sequence(plan, config, length)
    select = scored_positions(labels)
    ours, exact = (models[name](inputs, select=select) for name in ("triton", "reference"))
    off = float((ours - exact).abs().max() / exact.abs().max())
    if not off <= 1e-3:
        return f"logits are off by {off:.1e}"
    ours, exact = (
        score_teacher_forcing(models[name], inputs, labels) for name in ("triton", "reference")
    )
    same = (ours.correct, ours.right) == (exact.correct, exact.right)
    return None if same or exact.close_calls else f"{ours} by triton, {exact} by reference"
