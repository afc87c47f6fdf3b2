"""Compare a model's answers with their targets: token by token, and where they first go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcg.evaluation.test_sets import TestSet
from lcg.tasks.base import IGNORE, Task
from lcg.text import in_blocks

RED, FIRST_RED, PLAIN = "\033[31m", "\033[1;41;97m", "\033[0m"
NAMES = ("reads", "target", "predicted", "")
INDENT = 14  # of the columns, after the name of their row
BLOCKS = 6  # of one sample that are shown
BARS = "▁▂▃▄▅▆▇█"

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """Inputs of n samples, tensors [n t], and the model's predictions at the m positions that
    are scored in any of them: inputs, targets and best symbols [n m], IGNORE where a sample is not
    scored."""

    reads: tuple[Tensor, ...]
    positions: np.ndarray
    inputs: np.ndarray
    target: np.ndarray
    predicted: np.ndarray


def answer(
    model, test_set: TestSet, progress: Callable[[int, int], None] = lambda done, total: None
) -> Answers:
    """Answer a test set, as many samples at a time as fit in memory."""
    import torch

    from lcg.evaluation import memory
    from lcg.evaluation.scoring import scored_positions
    from lcg.models.transformer import batch_tensors, model_inputs

    batch = batch_tensors(test_set.batch())
    select = scored_positions(batch["labels"])
    target, inputs = (batch[name][:, select] for name in ("labels", "inputs"))
    device = next(model.parameters()).device
    size = memory.batch_size(test_set.config, *test_set.sample_size, len(target), device)
    best, done = [], 0
    with torch.no_grad():
        for some in zip(*(tokens.split(size) for tokens in model_inputs(batch)), strict=True):
            on_device = (tokens.to(device) for tokens in some)
            best.append(model(*on_device, select=select.to(device)).argmax(dim=-1).cpu())
            done += len(some[0])
            progress(done, len(target))
    predicted = torch.cat(best).masked_fill(target == IGNORE, IGNORE)
    return Answers(model_inputs(batch), *(t.numpy() for t in (select, inputs, target, predicted)))


def first_errors(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The first wrong scored position of each sample [n], counted from 0; -1 where all are right.

    target and predicted are [n m].
    """
    wrong = target != predicted
    return np.where(wrong.any(axis=1), wrong.argmax(axis=1), -1)


def histogram(first: np.ndarray, positions: int, bins: int = 40) -> str:
    """One line: how many samples go wrong first in each stretch of the scored positions."""
    failed = first[first >= 0]
    bins = min(bins, positions)
    counts = np.bincount(failed * bins // positions, minlength=bins)
    top = max(1, counts.max())
    # any sample at all shows, and the fullest stretch has the full bar
    bars = "".join(" " if c == 0 else BARS[-(-int(c) * len(BARS) // top) - 1] for c in counts)
    return (
        f"first errors of {len(failed)} samples over positions 1 to {positions}: |{bars}| "
        f"median {int(np.median(failed)) + 1}, earliest {failed.min() + 1}"
    )


def comparison(
    task: Task,
    inputs: np.ndarray,
    target: np.ndarray,
    predicted: np.ndarray,
    width: int = 100,
    colour: bool = False,
) -> str:
    """Target over prediction in columns, ^ under what is wrong, ! under the first of these.

    inputs, target and predicted are [m], at the scored positions. The row of what was read is shown
    where labels belong to symbols (tagging). Blocks of at most `width` characters; those without an
    error are counted only, as is what follows the first BLOCKS with one. With `colour` wrong tokens
    are red.
    """
    wrong = target != predicted
    first = int(wrong.argmax()) if wrong.any() else -1
    columns = []
    for i in range(len(target)):
        mark = "!" if i == first else "^" if wrong[i] else ""
        read = task.text(inputs[i]) if task.kind != "seq2seq" else ""
        columns.append((read, task.text(target[i]), task.text(predicted[i]), mark))
    lines, left, shown, start = [], 0, 0, 0
    for block in in_blocks(columns, width - INDENT):
        stop = start + len(block)
        if any(mark for *_, mark in block) and shown < BLOCKS:
            lines += _left_out(wrong[start - left : start])
            lines += [f"  positions {start + 1}–{stop}", *_rows(block, colour)]
            left, shown = 0, shown + 1
        else:
            left += len(block)
        start = stop
    return "\n".join(lines + _left_out(wrong[start - left : start]))


def _left_out(wrong: np.ndarray) -> list[str]:
    """A line on positions that are not shown, if there are any."""
    if not len(wrong):
        return []
    return [f"  … {len(wrong)} positions, {int(wrong.sum()) or 'none'} wrong"]


def _rows(block: list[tuple[str, ...]], colour: bool) -> list[str]:
    widths = [max(map(len, column)) for column in block]
    lines = []
    for name, cells in zip(NAMES, zip(*block, strict=True), strict=True):
        if not any(cells):
            continue
        texts = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        if name == "predicted" and colour:
            marks = [column[-1] for column in block]
            texts = [_coloured(text, mark) for text, mark in zip(texts, marks, strict=True)]
        lines.append(f"    {name}".ljust(INDENT) + " ".join(texts).rstrip())
    return lines


def _coloured(text: str, mark: str) -> str:
    if not mark:
        return text
    bare = text.lstrip()
    space = text[: len(text) - len(bare)]
    return f"{space}{FIRST_RED if mark == '!' else RED}{bare}{PLAIN}"
