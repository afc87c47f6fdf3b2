"""Inputs and labels made of source and target; the vocabulary; lengths in tokens."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_samples import fitting

from lcg.tasks.base import IGNORE, Task
from lcg.tasks.mqmtar import MQMTAR
from lcg.tasks.streams import train_batch

PAD, BOS, EOS, MASK, SEP = 3, 4, 5, 6, 7  # after the three symbols of the tasks below
_ = IGNORE


@dataclass
class Doubling(Task):
    """L symbols 0, twice as many symbols 1; 2 beyond the rows' ends."""

    name: ClassVar[str] = "doubling"
    symbol_count = 3

    def target_length(self, length):
        return 2 * length

    def sample(self, rng, lengths):
        column, lengths = np.arange(10), lengths[:, None]
        return np.where(column < lengths, 0, 2), np.where(column < 2 * lengths, 1, 2)


class DoublingUnseparated(Doubling):
    separator = False


class Tagged(Doubling):
    kind = "tagging"


RAGGED = np.array([2, 1])


def test_seq2seq_golden():
    batch = Doubling().encode(None, RAGGED)
    np.testing.assert_array_equal(
        batch.inputs, [[BOS, 0, 0, SEP, 1, 1, 1, 1], [BOS, 0, SEP, 1, 1, PAD, PAD, PAD]]
    )
    np.testing.assert_array_equal(
        batch.labels, [[_, _, _, 1, 1, 1, 1, EOS], [_, _, 1, 1, EOS, _, _, _]]
    )
    assert Doubling().token_length(2) == 9


def test_seq2seq_without_separator_golden():
    batch = DoublingUnseparated().encode(None, RAGGED)
    np.testing.assert_array_equal(
        batch.inputs, [[BOS, 0, 0, 1, 1, 1, 1], [BOS, 0, 1, 1, PAD, PAD, PAD]]
    )
    np.testing.assert_array_equal(batch.labels, [[_, _, 1, 1, 1, 1, EOS], [_, 1, 1, EOS, _, _, _]])
    assert DoublingUnseparated().token_length(2) == 8


def test_tagging_golden():
    batch = Tagged().encode(None, RAGGED)
    np.testing.assert_array_equal(batch.inputs, [[BOS, 0, 0], [BOS, 0, PAD]])
    np.testing.assert_array_equal(batch.labels, [[_, 1, 1], [_, 1, _]])
    assert Tagged().token_length(2) == 3


def test_special_ids_follow_the_symbols():
    task = Doubling()
    assert (task.pad, task.bos, task.eos, task.mask, task.sep) == (PAD, BOS, EOS, MASK, SEP)
    assert task.vocabulary == 8


def test_large_vocabularies_do_not_overflow():
    task = MQMTAR(alphabet=40_000, words=100, key_length=1, value_length=1)
    batch = train_batch(task, 0, 0, 64, 32, 64)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() == task.sep == task.vocabulary - 1


def test_batches_are_int64(task):
    batch = train_batch(task, 0, 0, 8, 40, 50)
    assert {array.dtype for array in batch if array is not None} == {np.dtype(np.int64)}
    assert batch.inputs.shape == batch.labels.shape
    assert batch.lengths.shape == (8,)


def test_ids_do_not_collide(task):
    """Symbols stay below the special ids, which are distinct and fill the vocabulary."""
    specials = [task.pad, task.bos, task.eos, task.mask, task.sep]
    assert specials == list(range(task.symbol_count, task.vocabulary))
    source, target = task.sample(np.random.default_rng(0), np.full(256, 64))
    for symbols in (source[:, : task.source_length(64)], target[:, : task.target_length(64)]):
        assert symbols.min() >= 0 or task.variable_length or task.partly_scored
        assert symbols.max() < task.symbol_count


def test_ragged_batches_are_assembled_row_by_row(task):
    """A row of a ragged batch holds the same tokens as when it is assembled alone."""
    lengths = np.random.default_rng(1).integers(task.min_length, 60, 50)
    source, target = task.sample(np.random.default_rng(2), lengths)
    batch = task.assemble(source, target, lengths)
    most = task.token_length(lengths) - (task.kind == "seq2seq")
    assert batch.inputs.shape[1] == most.max() or task.variable_length
    for i in range(len(lengths)):
        alone = task.assemble(source[i : i + 1], target[i : i + 1], lengths[i : i + 1])
        width = alone.inputs.shape[1]
        assert width == most[i] or (task.variable_length and width < most[i])
        np.testing.assert_array_equal(batch.inputs[i, :width], alone.inputs[0])
        np.testing.assert_array_equal(batch.labels[i, :width], alone.labels[0])
        assert (batch.inputs[i, width:] == task.pad).all()
        assert (batch.labels[i, width:] == IGNORE).all()


def test_scored_positions_are_shared_at_one_length(task):
    if task.variable_length or task.partly_scored:
        pytest.skip("rows of one length differ in theirs, or in what is scored")
    batch = train_batch(task, 0, 0, 32, 40, 40)
    scored = batch.labels != IGNORE
    assert (scored == scored[0]).all()
    expected = 40 if task.kind == "tagging" else task.target_length(40) + 1
    assert scored[0].sum() == expected
    if task.kind == "seq2seq":
        assert scored[0, -expected:].all()
        assert (batch.labels[:, -1] == task.eos).all()
        assert (batch.inputs[:, 0] == task.bos).all()
        # What must be predicted is what is read next.
        np.testing.assert_array_equal(
            batch.labels[:, -expected:-1], batch.inputs[:, 1 - expected :]
        )


def test_paper_vocabularies(task_class):
    expected = {"copy": 37, "reverse": 37, "sort": 37, "mqmtar": 264, "n_back": 21}
    expected |= {"local_count": 53, "flip_flop": 10, "max_retrieval": 79}
    if task_class.name in expected:
        assert task_class().vocabulary == expected[task_class.name]


def test_mqmtar_lengths_golden():
    nominal = 2 ** np.arange(6, 17)
    source = [76, 131, 250, 488, 964, 1923, 3834, 7656, 15300, 30595, 61178]
    task = MQMTAR()
    assert task.source_length(nominal).tolist() == source
    assert task.target_length(64) == 12
    assert task.token_length(65536) == 61178 + 12 + 3


@given(st.integers(8, 70_000))
def test_lengths_are_vectorised(length):
    for task in (MQMTAR(), Doubling(), DoublingUnseparated(), Tagged()):
        alone, among = task.token_length(length), task.token_length(np.array([length, 64]))
        assert alone == among[0]
        assert isinstance(alone, int)


@pytest.mark.parametrize("length", [12, 37, 64])
def test_example_is_two_aligned_lines(task, length):
    inputs, labels = task.example(fitting(task, length)).splitlines()
    assert inputs.startswith("inputs ")
    assert labels.startswith("labels ")
    assert len(inputs.split()) == len(labels.split())
