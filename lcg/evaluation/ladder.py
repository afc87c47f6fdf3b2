"""Evaluate at several lengths: one cell of results per length, also after errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from lcg.evaluation import memory
from lcg.evaluation.scoring import (
    PARTS,
    ROOM,
    Score,
    generated,
    labelled,
    references,
    score_greedy,
    score_teacher_forcing,
)
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors
from lcg.runs.record import Cell

Progress = Callable[[int, int, int], None]  # length, samples done, samples in all


def evaluate_lengths(
    model,
    test_sets: Iterable[TestSet],
    *,
    decode: str = "teacher_forcing",
    batch_size: int | None = None,
    step: int | None = None,
    changes: Mapping[str, Any] = {},
    metrics: bool = False,
    on_progress: Progress = lambda length, done, total: None,
) -> Iterator[Cell]:
    """Yield the cell of each test set as soon as it is known.

    A length that does not fit in memory yields a cell that says so, and the next length follows.
    With `metrics` a cell also has what a task measures beside exact match. step: of the checkpoint.
    changes: in what the model's options are not those of its run, see `Cell`.
    """
    training = model.training
    model.eval()
    try:
        for test_set in test_sets:
            started = time.perf_counter()
            greedy = test_set.decoding(decode) == "greedy"
            measured_fields = _evaluate(model, test_set, greedy, batch_size, on_progress)
            if measured_fields.get("state") != "out_of_memory":
                if "state" not in measured_fields and metrics and test_set.config.task.metrics:
                    with suppress(MemoryError):  # then the cell has what is known without them
                        measured_fields["metrics"] = measured(model, test_set, batch_size)
                measured_fields["seconds"] = round(time.perf_counter() - started, 3)
            yield test_set.cell(decode, step, changes, **measured_fields)
    finally:
        model.train(training)


def _evaluate(model, test_set: TestSet, greedy: bool, batch_size, on_progress: Progress) -> dict:
    """Return the fields of a cell that depend on the model."""
    device, score, task = next(model.parameters()).device, Score(), test_set.config.task
    ended = task.kind == "seq2seq"  # by EOS, which is scored

    def scored(batch) -> Score:
        score_batch = score_greedy if greedy else score_teacher_forcing
        distance = task.evidence_distance(batch)
        return score_batch(
            model,
            **batch_tensors(batch, device),
            eos=task.eos if ended else None,
            distance=None if distance is None else torch.as_tensor(distance, device=device),
        )

    try:
        size = batch_size or memory.batch_size_of(test_set, device)
        for part in memory.in_batches(test_set, size, scored):
            score += part
            on_progress(test_set.length, score.samples, test_set.samples)
    except MemoryError as error:
        return {"state": "out_of_memory", "reason": str(error)}
    if not score.finite:
        return {"state": "not_finite", "reason": "the model's logits are not finite"}
    return {
        "correct": score.correct,
        "token_accuracy": score.right / score.positions,
        "prefix": score.prefix / score.samples,
        "close_calls": None if greedy else score.close_calls,
        "oracle_length": score.oracle / score.samples if ended else None,
        "edit_distance": score.edits / score.samples if greedy else None,
        "by_part": _counts(score.by_part, lambda i: 100 * (i + 1) // PARTS),
        "by_distance": _counts(score.by_distance, lambda i: 2**i),
        "outcomes": score.outcomes_in_hexadecimal,
    }


def _counts(tally: np.ndarray, bound: Callable[[int], int]) -> dict[int, list[int]] | None:
    """Right and scored positions of every part that has some, by its upper bound."""
    counts = {bound(i): pair for i, pair in enumerate(tally.tolist()) if pair[1]}
    return counts or None


def measured(model, test_set: TestSet, batch_size: int | None = None) -> dict[str, float]:
    """Return `task.measure` over the samples of a test set.

    The predictions are generated targets, as of a translation, or labels from one forward pass.

    Raises MemoryError as `memory.in_batches`, ValueError unless all metrics are finite numbers.
    """
    config, device = test_set.config, next(model.parameters()).device
    task, (tokens, _) = config.task, test_set.sample_size
    size = batch_size or memory.batch_size(config, ROOM * tokens, tokens, test_set.samples, device)
    answer = generated if task.kind == "seq2seq" else labelled
    predicted: list[np.ndarray] = []
    reference: list[np.ndarray] = []
    for answers, right in memory.in_batches(
        test_set, size, lambda batch: (answer(model, task, batch), references(task, batch))
    ):
        predicted += answers
        reference += right
    values = task.measure(predicted, reference)
    with suppress(AttributeError, TypeError, ValueError, OverflowError):
        numbers = {str(name): float(value) for name, value in values.items()}
        if all(map(math.isfinite, numbers.values())):
            return numbers
    raise ValueError(
        f"{type(task).__name__}.measure() returned {values!r:.80}, expected finite numbers for "
        f"{', '.join(task.metrics)}"
    )
