"""Evaluate a trained run on the test ladder and merge the cells into its record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lcg.attention.backends import unrunnable
from lcg.config import Config
from lcg.evaluation.ladder import Progress, evaluate_lengths
from lcg.evaluation.test_sets import ladder_of
from lcg.log import log
from lcg.models.transformer import build_model
from lcg.runs.record import Cell, RunRecord
from lcg.runs.run import Run


def load_model(directory: Path, config: Config, device: str | torch.device = "cpu"):
    """The selected checkpoint's model and its step.

    A run of attention.backend=triton is read anywhere: where its kernels cannot run, with `auto`,
    which gives the same to rounding.

    Raises ValueError when there is no checkpoint, UnreadableCheckpoint when it cannot be used.
    """
    run = Run(directory)
    run.check_selected()
    attention = config.attention
    if problem := unrunnable(attention.backend, torch.device(device)):
        log.warning(f"{directory}: attention.backend=triton {problem}; read with backend=auto")
        config = replace(config, attention=replace(attention, backend="auto"))
    model = build_model(config)
    weights, step = run.weights(model)
    model.load_state_dict(weights)
    return model.to(device).eval(), step


def choose_device(name: str) -> torch.device:
    """The device of that name, `auto` being a GPU if there is one. Raises ValueError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from None


def evaluate(
    directory: Path,
    config: Config,
    device: str = "auto",
    progress: Progress = lambda length, done, total: None,
) -> Iterator[Cell]:
    """Evaluate at the test lengths of `config.evaluation` with a run's selected checkpoint.

    A length that the same checkpoint was evaluated at before, on the same samples, is not evaluated
    again, unless its record lacks the outcome of each sample or the task's metrics; what was out of
    memory is tried again. Each cell is in results.json before it is yielded, so nothing is lost by
    stopping.
    """
    model, step = load_model(directory, config, choose_device(device))
    asked = config.evaluation
    record = RunRecord.load(directory)
    settled = {
        cell.key: cell
        for cell in record.ladder
        if (cell.outcomes and set(config.task.metrics) <= set(cell.metrics or ()))
        or cell.state == "not_finite"
    }
    for test_set in ladder_of(config):
        key = test_set.cell_key(asked.decode, step)
        if key in settled:
            yield settled[key]
            continue
        with RunRecord.updating(directory):
            pass  # a directory that cannot be written is told before the work, not after
        (cell,) = evaluate_lengths(
            model,
            [test_set],
            decode=asked.decode,
            batch_size=asked.batch_size,
            step=step,
            metrics=True,
            on_progress=progress,
        )
        with RunRecord.updating(directory):
            RunRecord.load(directory, record.hash).merge([cell]).save(directory)
        yield cell
