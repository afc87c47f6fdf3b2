"""Compare a model's answers with their targets: token by token, and by the first error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from lcg.evaluation.test_sets import TestSet
from lcg.tasks.base import IGNORE, Task
from lcg.text import in_blocks

RED, FIRST_RED, PLAIN = "\033[31m", "\033[1;41;97m", "\033[0m"
COLOURS = {"^": RED, "!": FIRST_RED}
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
    """Answer a test set, with as many samples at a time as fit in memory."""
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


def histogram(first: np.ndarray, positions: int) -> str:
    """Return a line: the number of samples whose first error is in each stretch of scored
    positions."""
    failed = first[first >= 0]
    stretches = min(40, positions)
    counts = np.bincount(failed * stretches // positions, minlength=stretches).tolist()
    return (
        f"first errors of {len(failed)} samples over positions 1 to {positions}: |{bars(counts)}| "
        f"median {int(np.median(failed)) + 1}, earliest {failed.min() + 1}"
    )


def bars(counts: Sequence[int]) -> str:
    """Draw a bar per count: any count is visible, and the largest is full."""
    top = max(1, *counts)
    return "".join(" " if c == 0 else BARS[-(-c * len(BARS) // top) - 1] for c in counts)


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
    marks = np.where(wrong, "^", "")
    marks[wrong.argmax()] = "!" if wrong.any() else ""
    read = inputs if task.kind != "seq2seq" else ()
    texts = ([task.text(token) for token in tokens] for tokens in (read, target, predicted))
    columns = list(zip_longest(*texts, marks.tolist(), fillvalue=""))
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
        texts = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        if name == "predicted" and colour:
            for place, (*_, cell, mark) in enumerate(block):
                space = texts[place].removesuffix(cell)
                texts[place] = f"{space}{COLOURS[mark]}{cell}{PLAIN}" if mark else texts[place]
        if any(cells):
            lines.append(f"    {name}".ljust(INDENT) + " ".join(texts).rstrip())
    return lines
