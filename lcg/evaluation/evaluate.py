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
from lcg.results import wilson
from lcg.results.statistics import Measure
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


def evaluate_and_log(directory: Path, config: Config, device: str = "auto") -> list[Cell]:
    """Evaluate as `evaluate` does, with a progress bar and a logged line per length."""
    log.info(f"{directory}: test ladder, {_samples(config)} samples per length")
    cells, bar = [], LengthBar()
    try:
        for cell in evaluate(directory, config, device, bar):
            bar.close()
            log.info(f"  {cell.length:>7,}  {cell_text(cell)}")
            cells.append(cell)
    finally:
        bar.close()
    return cells


def _samples(config: Config) -> str:
    """The count asked for; "up to" where the test split has fewer at a length."""
    asked = config.evaluation.samples
    return f"{asked}" if all(s.samples == asked for s in ladder_of(config)) else f"up to {asked}"


def cell_text(cell: Cell) -> str:
    """One result with its Wilson interval and time, or why there is none."""
    if cell.state != "value":
        return f"{cell.state.replace('_', ' ')}: {cell.reason}"
    low, high = wilson(cell.correct, cell.samples)
    metrics = "".join(f"   {Measure(k).title} {v:.1f}" for k, v in (cell.metrics or {}).items())
    return (
        f"exact match {100 * cell.exact_match:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        f"   tokens {100 * cell.token_accuracy:5.1f} %{metrics}   {cell.seconds:.1f} s"
    )


class LengthBar:
    """A progress bar per length, gone when the length is done; nothing where there is no terminal.

    Called with the length, the samples done, and the samples in all.
    """

    def __init__(self) -> None:
        self._bar = None

    def __call__(self, length: int, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            title = f"  {length:>7,}"
            self._bar = tqdm(total=total, desc=title, unit="sample", leave=False, disable=None)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
