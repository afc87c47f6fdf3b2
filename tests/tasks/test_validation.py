"""Bad parameters and impossible lengths end in one line that names the task."""

import numpy as np
import pytest

from lcg.tasks.copy import Copy
from lcg.tasks.flip_flop import FlipFlop
from lcg.tasks.local_count import LocalCount
from lcg.tasks.max_retrieval import MaxRetrieval
from lcg.tasks.mqmtar import MQMTAR
from lcg.tasks.n_back import NBack
from lcg.tasks.reverse import Reverse
from lcg.tasks.sort import Sort
from lcg.tasks.streams import EvalStream, train_batch


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Copy, {"symbols": 1}, "symbols must be at least 2, got 1"),
        (Copy, {"symbols": "32"}, "symbols must be int, got '32'"),
        (Copy, {"symbols": True}, "symbols must be int, got True"),
        (Copy, {"symbols": 32.0}, "symbols must be int, got 32.0"),
        (Reverse, {"symbols": 0}, "symbols must be at least 2"),
        (Sort, {"symbols": -3}, "symbols must be at least 2"),
        (NBack, {"n": 0}, "n must be at least 1"),
        (NBack, {"symbols": 2}, "symbols must be at least 3"),
        (LocalCount, {"max_reps": 1}, "max_reps must be at least 2"),
        (LocalCount, {"symbols": 1}, "symbols must be at least 2"),
        (MaxRetrieval, {"priorities": 1}, "priorities must be at least 2"),
        (MaxRetrieval, {"classes": 1}, "classes must be at least 2"),
        (FlipFlop, {"writes": 0.0}, "writes must lie in"),
        (FlipFlop, {"writes": float("nan")}, "writes must lie in"),
        (FlipFlop, {"writes": 4.0, "per": "instruction"}, "writes must lie in"),
        (FlipFlop, {"per": "token"}, "per must be sequence or instruction, got 'token'"),
        (MQMTAR, {"words": 70_000}, "words=70000, but only 65536 exist"),
        (MQMTAR, {"key_length": 1}, "words=10000, but only 256 exist"),
        (MQMTAR, {"density": 1.5}, "density must lie in"),
        (MQMTAR, {"queries": 0}, "queries must be at least 1"),
        (
            MQMTAR,
            {"key_length": 9},
            "alphabet=256 gives 2**63 words of 9 letters or more; use fewer",
        ),
        (MQMTAR, {"fresh_words": 1}, "fresh_words must be bool, got 1"),
    ],
)
def test_bad_parameters(cls, options, message):
    with pytest.raises(ValueError) as error:
        cls(**options)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{cls.name}: ")
    assert "\n" not in str(error.value)


def test_whole_numbers_pass_for_real_ones():
    assert FlipFlop(writes=2).writes == 2
    assert MQMTAR(density=1).pairs_at(64) == 10


def test_least_length(task):
    task.check_length(task.min_length)
    task.check_length(np.int64(task.min_length))
    with pytest.raises(ValueError, match=f"{task.name}: length {task.min_length - 1} is too short"):
        task.check_length(task.min_length - 1)
    for length in (64.0, "64", True, None):
        with pytest.raises(ValueError, match="a length is a whole number"):
            task.check_length(length)


def test_least_length_can_be_drawn(task):
    batch = train_batch(task, 0, 0, 64, task.min_length, task.min_length)
    most = task.token_length(task.min_length) - (task.kind == "seq2seq")
    assert batch.inputs.shape[1] == most or (task.variable_length and batch.inputs.shape[1] < most)


def test_more_pairs_than_words():
    MQMTAR().check_length(65536)
    with pytest.raises(
        ValueError, match="length 131072 needs 17476 distinct keys, but words=10000"
    ):
        MQMTAR().check_length(131072)
    small = MQMTAR(alphabet=16, words=16, queries=1, key_length=1, value_length=1)
    assert small.pairs_at(80) == 16
    small.check_length(80)
    with pytest.raises(ValueError, match="needs 17 distinct keys, but words=16"):
        EvalStream(small, 0, "test", 85)


def test_streams_refuse_bad_ranges():
    with pytest.raises(ValueError, match="max_length=8 is less than min_length=9"):
        train_batch(Copy(), 0, 0, 4, 9, 8)
    with pytest.raises(ValueError, match="per sample or per batch, got per='token'"):
        train_batch(Copy(), 0, 0, 4, 8, 9, per="token")
    with pytest.raises(ValueError, match="copy: length 0 is too short"):
        train_batch(Copy(), 0, 0, 4, 0, 9)
