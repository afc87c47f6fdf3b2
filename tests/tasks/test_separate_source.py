"""Source and target apart, rows with lengths of their own, and masked tasks: against naive ones."""

import numpy as np
import pytest
from oracles.variable_length import Ragged, RaggedMasked

from lcg.tasks.base import IGNORE
from lcg.tasks.copy import Copy
from lcg.tasks.mqmtar import MQMTAR
from lcg.tasks.streams import EvalStream, eval_batch, train_batch


def rows_of(task, drawn, lengths, which):
    """The symbols of each row, as lists."""
    if task.variable_length:
        return [[s for s in row if s >= 0] for row in drawn.tolist()]
    count = (task.source_length, task.target_length)[which]
    counts = np.broadcast_to(count(lengths), lengths.shape)
    return [row[:n] for row, n in zip(drawn.tolist(), counts, strict=True)]


def filled(rows, filler):
    width = max(map(len, rows))
    return [row + [filler] * (width - len(row)) for row in rows]


@pytest.mark.parametrize("some_task", [Copy(), MQMTAR(), Ragged()], ids=lambda t: t.name)
def test_apart_is_bos_source_eos_and_bos_target(some_task):
    task = some_task
    lengths = np.array([17, 24, 19, 32])
    source, target = task.sample(np.random.default_rng(0), lengths)
    batch = task.assemble(source, target, lengths, separate_source=True)
    sources = rows_of(task, source, lengths, 0)
    targets = rows_of(task, target, lengths, 1)
    assert batch.source.tolist() == filled([[task.bos, *s, task.eos] for s in sources], task.pad)
    assert batch.inputs.tolist() == filled([[task.bos, *t] for t in targets], task.pad)
    assert batch.labels.tolist() == filled([[*t, task.eos] for t in targets], IGNORE)
    assert {a.dtype for a in batch[:4]} == {np.dtype(np.int64)} and batch.ids is None
    together = task.assemble(source, target, lengths)
    assert together.source is None
    for row, s, t in zip(together.inputs.tolist(), sources, targets, strict=True):
        sep = [task.sep] if task.separator else []
        whole = [task.bos, *s, *sep, *t]
        assert row == whole + [task.pad] * (len(row) - len(whole))
    scored = [[s for s in row if s != IGNORE] for row in together.labels.tolist()]
    assert scored == [[*t, task.eos] for t in targets]


def test_a_masked_task_scores_its_masked_symbols():
    task, lengths = RaggedMasked(), np.array([5, 9, 7])
    batch = task.encode(np.random.default_rng(0), lengths)
    assert batch.source is None and batch.inputs.shape == batch.labels.shape
    for read, label in zip(batch.inputs.tolist(), batch.labels.tolist(), strict=True):
        assert read[0] == task.bos and label[0] == IGNORE
        for symbol, answer in zip(read[1:], label[1:], strict=True):
            assert (symbol == task.mask) == (answer != IGNORE)
    assert task.token_length(9) == 10


@pytest.mark.parametrize("some_task", [Ragged(), RaggedMasked()], ids=lambda t: t.name)
def test_ragged_rows_are_the_same_however_they_are_batched(some_task):
    task = some_task
    separate_source = task.kind == "seq2seq"
    whole = eval_batch(task, 0, "test", 12, 0, 200, separate_source)
    stream, start = EvalStream(task, 0, "test", 12, separate_source), 0
    for count in (1, 63, 64, 5, 67):
        part = stream.batch(start, count)
        for one, all_of_it in zip(part, whole, strict=True):
            if one is not None and one.ndim == 2:
                rows, filler = all_of_it[start : start + count], all_of_it[:, -1].min()
                assert (rows[:, : one.shape[1]] == one).all()
                assert set(np.unique(rows[:, one.shape[1] :])) <= {task.pad, filler, IGNORE}
        start += count
    one, *ranks = (
        train_batch(task, 0, 1, 8, 4, 9, rank=r, world=w, separate_source=separate_source)
        for r, w in ((0, 1), (0, 2), (1, 2))
    )
    for rank, batch in enumerate(ranks):
        width = batch.inputs.shape[1]
        assert (batch.inputs == one.inputs[rank::2, :width]).all()
