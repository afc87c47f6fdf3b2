"""Evaluate a run's selected checkpoint: at its test lengths, and at longer validation lengths to
break ties.

Each result is merged into the run's results.json before the next length begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lcg.attention.backends import unrunnable
from lcg.config import Config
from lcg.evaluation.ladder import Progress, evaluate_lengths
from lcg.evaluation.test_sets import TestSet, ladder_of
from lcg.log import log
from lcg.models.transformer import build_model
from lcg.results import Choice, choose, wilson
from lcg.results.labels import change_label
from lcg.results.selection import longer_lengths
from lcg.results.statistics import Measure
from lcg.runs.files import Busy
from lcg.runs.record import Cell, RunRecord, Validation
from lcg.runs.run import Run
from lcg.runs.sources import Trust

REACH = 8  # times the monitored length


def load_model(directory: Path, config: Config, device: str | torch.device = "cpu"):
    """Return the selected checkpoint's model and its step.

    A run with attention.backend=triton can be loaded on any machine: if its kernels cannot run,
    with `auto`, which gives the same to rounding.

    Raises ValueError when there is no checkpoint, UnreadableCheckpoint when it cannot be used.
    """
    attention = config.attention
    if problem := unrunnable(attention.backend, torch.device(device)):
        log.warning(f"{directory}: attention.backend=triton {problem}; using backend=auto")
        config = replace(config, attention=replace(attention, backend="auto"))
    model = build_model(config)
    weights, step = Run(directory).weights(model)
    model.load_state_dict(weights)
    return model.to(device).eval(), step


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is a GPU if there is one. Raises ValueError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from None


def check_tensors(own: Config, changed: Config) -> None:
    """Raise ValueError, naming some differences, unless both have the same learned tensors."""
    shapes = (
        {name: list(tensor.shape) for name, tensor in build_model(config).state_dict().items()}
        for config in (own, changed)
    )
    if differences := list(_differences(*shapes)):
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            "only options that leave the learned tensors unchanged can change at evaluation; "
            f"{', '.join(differences[:3])}{more}: train a run with it"
        )


def _differences(own: dict[str, list[int]], changed: dict[str, list[int]]) -> Iterator[str]:
    for name in sorted(own.keys() | changed.keys()):
        if name not in changed:
            yield f"{name} would be gone"
        elif name not in own:
            yield f"{name} {changed[name]} would be new"
        elif own[name] != changed[name]:
            yield f"{name} {own[name]} would be {changed[name]}"


def evaluate_and_log(
    directory: Path, config: Config, device: str = "auto", changes: Mapping[str, Any] = {}
) -> list[Cell]:
    """Evaluate a run at the test lengths of `config.evaluation`; logs a line per length.

    changes: in what the config is not the run's own, see `with_changes`.
    A length that the same checkpoint was evaluated at before, on the same samples, is not evaluated
    again, unless its record lacks the outcome of each sample or the task's metrics; what was out of
    memory is tried again. Each cell is in results.json before the next length is begun.
    """
    asked, test_sets, cells = config.evaluation, ladder_of(config), []
    fewer = any(test_set.samples < asked.samples for test_set in test_sets)
    changed = f" with {change_label(changes)}" if changes else ""
    log.info(
        f"{directory}: test ladder{changed}, {'up to ' * fewer}{asked.samples} samples per length"
    )
    model, step = load_model(directory, config, choose_device(device))
    record = RunRecord.load(directory)
    settled = {
        cell.key: cell
        for cell in record.ladder
        if (cell.outcomes and set(config.task.metrics) <= set(cell.metrics or ()))
        or cell.state == "not_finite"
    }
    with closing(LengthBar()) as bar:
        options = {"step": step, "changes": changes, "metrics": True, "on_progress": bar}
        options |= {"decode": asked.decode, "batch_size": asked.batch_size}
        for test_set in test_sets:
            cell = settled.get(test_set.cell_key(asked.decode, step, changes))
            if cell is None:
                with RunRecord.updating(directory):
                    pass  # a directory that cannot be written is told before the work, not after
                (cell,) = evaluate_lengths(model, [test_set], **options)
                with RunRecord.updating(directory):
                    RunRecord.load(directory, record.hash).merge([cell]).save(directory)
            bar.close()
            log.info(f"  {cell.length:>7,}  {cell_text(cell)}")
            cells.append(cell)
    return cells


def cell_text(cell: Cell) -> str:
    """Return a result with its Wilson interval and time, or the reason why there is none."""
    if cell.state != "value":
        return f"{cell.state.replace('_', ' ')}: {cell.reason}"
    low, high = wilson(cell.correct, cell.samples)
    metrics = "".join(f"   {Measure(k).title} {v:.1f}" for k, v in (cell.metrics or {}).items())
    return (
        f"exact match {100 * cell.exact_match:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        f"   tokens {100 * cell.token_accuracy:5.1f} %{metrics}   {cell.seconds:.1f} s"
    )


class LengthBar:
    """A progress bar per length, removed when the length is done; only on a terminal.

    Called with the length, the number of samples done, and the number of all samples.
    """

    def __init__(self) -> None:
        self._bar = None

    def __call__(self, length: int, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            options = {"unit": "sample", "leave": False, "disable": None}
            self._bar = tqdm(total=total, desc=f"  {length:>7,}", **options)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def break_tie(
    runs: Mapping[Path, RunRecord],
    longest: int | None,
    device: str,
    progress: Progress,
    metric: str,
    trust: Trust,
) -> tuple[Choice, str]:
    """Validate the tied runs of one group, until one is ahead or `longest` is passed.

    Returns the choice after that, and the reason if a tie is left, or "". metric: see `choose`. The
    lengths are those above the monitored one that only some of the tied runs have, then 2, 4, …
    times the longest of all; without `longest`, up to REACH times the monitored length. A tie is
    left if memory is insufficient or a file cannot be read or written.
    """
    held = dict(runs)
    while True:
        choice = choose(list(held.values()), metric)
        if choice.resolved or choice.monitored is None:
            return choice, ""
        limit = REACH * choice.monitored if longest is None else longest
        reached = choice.path[-1]
        length = next(iter(longer_lengths(choice.tied, reached)), 2 * reached)
        if length > limit:
            return choice, f"lengths above {limit} were not tried; --longest={length} tries them"
        for directory, record in runs.items():
            tied = any(held[directory] is other for other in choice.tied)
            if tied and length not in held[directory].validation:
                try:
                    held[directory] = validate(directory, length, device, progress, trust)
                except (MemoryError, OSError, ValueError, Busy) as error:
                    return choice, f"{record.run} at length {length}: {error}"


def validate(
    directory: Path, length: int, device: str, progress: Progress, trust: Trust
) -> RunRecord:
    """Validate a run's selected checkpoint at one more length; return its updated record.

    The samples are those of the validation split, as many as in training; neither training nor test
    uses them.

    Raises MemoryError when it does not fit, ValueError when the run cannot be used, Busy when it is
    being trained.
    """
    run = Run(directory, trust)
    config = run.config
    config.task.check_evaluation("validation", length)
    model, step = load_model(directory, config, choose_device(device))
    before = RunRecord.load(directory)
    selection = before.selection
    if selection is None or selection.step != step:
        recorded = "none" if selection is None else f"step {selection.step}"
        raise ValueError(f"best.ckpt has step {step} but the record selects {recorded}; resume it")
    (cell,) = evaluate_lengths(
        model,
        [TestSet(config, "validation", length, config.validation.samples)],
        batch_size=config.evaluation.batch_size,
        step=step,
        on_progress=progress,
    )
    if cell.state == "out_of_memory":
        raise MemoryError(f"out of memory ({cell.reason})")
    results = {length: Validation(cell.exact_match, cell.token_accuracy)}
    with run.lock(), RunRecord.updating(directory):
        record = RunRecord.load(directory, before.hash)
        if record.selection != selection:
            raise ValueError("its training continued and selected another checkpoint meanwhile")
        record = record.with_validation(results)
        record.save(directory)
    return record
