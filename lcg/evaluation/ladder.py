"""Evaluate at a ladder of lengths: one cell of results per length, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from lcg.evaluation import memory
from lcg.evaluation.generation_metrics import measured
from lcg.evaluation.scoring import Score, addressed_draws, score_greedy, score_teacher_forcing
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
    metrics: bool = False,
    on_progress: Progress = lambda length, done, total: None,
) -> Iterator[Cell]:
    """Yield the cell of each test set as soon as it is known.

    A length that does not fit in memory yields a cell that says so, and the next length follows.
    With `metrics` a cell also has what a task measures beside exact match. step: of the checkpoint.
    """
    training = model.training
    model.eval()
    try:
        for test_set in test_sets:
            started = time.perf_counter()
            found = _evaluate(model, test_set, decode, batch_size, metrics, on_progress)
            if found.get("state") != "out_of_memory":
                found["seconds"] = round(time.perf_counter() - started, 3)
            key = test_set.cell_key(decode, step)
            yield Cell(*key, tokens=test_set.token_length, **found)
    finally:
        model.train(training)


def _evaluate(model, test_set, decode, batch_size, metrics, on_progress) -> dict:
    """The fields of a cell that depend on the model."""
    greedy = test_set.decoding(decode) == "greedy"
    try:
        score = _score(model, test_set, greedy, batch_size, on_progress)
    except MemoryError as error:
        return {"state": "out_of_memory", "reason": str(error)}
    if not score.finite:
        return {"state": "not_finite", "reason": "the model's logits are not finite"}
    found = {
        "correct": score.correct,
        "token_accuracy": score.right / score.positions,
        "prefix": score.prefix / score.samples,
        "close_calls": None if greedy else score.close_calls,
        "outcomes": score.outcomes_in_hexadecimal,
    }
    if metrics and test_set.config.task.metrics:
        with suppress(MemoryError):  # then the cell has what is known without them
            found["metrics"] = measured(model, test_set, batch_size)
    return found


def _score(model, test_set: TestSet, greedy: bool, batch_size, on_progress: Progress) -> Score:
    """The score of all samples; raises MemoryError when not even one fits."""
    device = next(model.parameters()).device
    size = batch_size or memory.batch_size_of(test_set, device)
    score_batch = score_greedy if greedy else score_teacher_forcing
    total, address = Score(), (test_set.seed, test_set.split, test_set.length)

    def scored(batch) -> Score:
        with addressed_draws(*address, device):
            return score_batch(model, **batch_tensors(batch, device))

    for score in memory.in_batches(test_set, size, scored):
        total = total + score
        on_progress(test_set.length, total.samples, test_set.samples)
    return total
