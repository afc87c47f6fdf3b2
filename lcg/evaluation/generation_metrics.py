"""Compute what a task measures beside exact match, on what a model answers by itself.

A target is generated greedily until EOS, as a translation is; labels of tokens that were read come
from one forward pass.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from lcg.evaluation import memory
from lcg.evaluation.test_sets import TestSet
from lcg.tasks.base import IGNORE, Batch, Task

ROOM = 2  # generated are up to this many times the nominal length


def measured(model, test_set: TestSet, batch_size: int | None = None) -> dict[str, float]:
    """`task.measure` over the samples of a test set. Raises MemoryError as `in_batches`."""
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
    return _finite(task, task.measure(predicted, reference))


def _finite(task: Task, found: dict[str, float]) -> dict[str, float]:
    """Return what `task.measure` found. Raises ValueError unless all metrics are finite numbers."""
    try:
        numbers = {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        numbers = {"": math.nan}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(
            f"{type(task).__name__}.measure() returned {found!r:.80}, expected finite numbers for "
            f"{', '.join(task.metrics)}"
        )
    return numbers


def references(task: Task, batch: Batch) -> list[np.ndarray]:
    """The right answer of each row, EOS not among it."""
    rows = [row[row != IGNORE] for row in batch.labels]
    return [row[:-1] for row in rows] if task.kind == "seq2seq" else rows


@torch.no_grad()
def labelled(model, task: Task, batch: Batch) -> list[np.ndarray]:
    """The best symbol at each scored position of each row."""
    device = next(model.parameters()).device
    best = model(torch.from_numpy(batch.inputs).to(device)).argmax(dim=-1).cpu().numpy()
    return [row[labels != IGNORE] for row, labels in zip(best, batch.labels, strict=True)]


@torch.no_grad()
def generated(model, task: Task, batch: Batch) -> list[np.ndarray]:
    """Decode each row's target greedily, up to EOS or `ROOM` times the length."""
    device = next(model.parameters()).device
    count = ROOM * int(batch.lengths.max())
    first = (batch.labels != IGNORE).argmax(axis=1)  # where a row's prompt ends
    rows: list[np.ndarray] = [np.empty(0, np.int64)] * len(first)
    for end in np.unique(first):  # a prompt is never padded; with an encoder all are BOS alone
        index = np.flatnonzero(first == end)
        reads = [batch.inputs[index, : end + 1]]
        if batch.source is not None:
            reads.append(batch.source[index])
        decoded = model.greedy(*(torch.from_numpy(read).to(device) for read in reads), count=count)
        for i, row in zip(index, decoded.cpu().numpy(), strict=True):
            rows[i] = until_eos(task, row)
    return rows


def sources(task: Task, batch: Batch) -> list[np.ndarray]:
    """The symbols of each row's source (seq2seq)."""
    if batch.source is not None:
        return [row[row < task.symbol_count] for row in batch.source]
    ends = (batch.labels != IGNORE).argmax(axis=1) + 1 - task.separator
    return [row[1:end] for row, end in zip(batch.inputs, ends, strict=True)]


def until_eos(task: Task, row: np.ndarray) -> np.ndarray:
    """A generated row up to its first EOS, or up to where logits were not finite."""
    ends = np.flatnonzero((row == task.eos) | (row < 0))
    return row[: ends[0]] if len(ends) else row
