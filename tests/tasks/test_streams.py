"""Data is a pure function of its address, and different addresses give different data."""

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lcg.tasks.copy import Copy
from lcg.tasks.mqmtar import MQMTAR, _words
from lcg.tasks.sort import Sort
from lcg.tasks.streams import BLOCK, EvalStream, eval_batch, eval_rng, train_batch, train_rng


def test_no_window_recurs_in_the_next_batch():
    """A counter that moves too little makes batch t + 1 a shifted batch t."""

    def windows(t):
        source, _ = Copy().sample(train_rng(0, t), np.full(128, 64))
        flat = source.astype(np.uint8).ravel()
        return {w.tobytes() for w in np.lib.stride_tricks.sliding_window_view(flat, 64)}

    seen = [windows(t) for t in range(6)]
    for one, other in itertools.combinations(seen, 2):
        assert not one & other


def test_streams_are_disjoint():
    streams = [train_rng(seed, t) for seed in range(4) for t in range(4)]
    streams += [
        eval_rng(seed, split, length, block)
        for seed in range(2)
        for split in ("validation", "test", "tiebreak")
        for length in (64, 128)
        for block in range(3)
    ]
    starts = [tuple(rng.integers(0, 32, 24)) for rng in streams]
    assert len(set(starts)) == len(streams)


def test_splits_differ_in_their_first_symbols(task):
    def first(batch):
        return batch.inputs[:16].tobytes()

    train = train_batch(task, 0, 0, 16, 64, 64)
    firsts = {first(eval_batch(task, 0, s, 64, 0, 16)) for s in ("validation", "test", "tiebreak")}
    assert len(firsts | {first(train)}) == 4


def test_golden_draws_in_another_process():
    """The derivation of keys depends on nothing of the process."""
    program = (
        "from lcg.tasks.streams import train_rng, eval_rng;"
        "print(train_rng(3, 5).integers(0, 32, 6).tolist(),"
        "eval_rng(3, 'test', 64, 2).integers(0, 32, 6).tolist())"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.strip() == "[1, 2, 10, 7, 14, 12] [17, 16, 19, 10, 1, 0]", done.stderr


FINGERPRINTS = {
    "addition": "ebe4eb8cac86",
    "binary_arithmetic": "48ce64a09ca5",
    "compute_sqrt": "88016342fa9f",
    "copy": "24f3e9e18446",
    "cumulative_parity": "b1a31add7d12",
    "cycle_navigation": "039bda002b11",
    "even_pairs": "28357102f462",
    "flip_flop": "54899e0e405c",
    "local_count": "c3e9a37fbe6c",
    "majority": "4dcbf1f42a08",
    "max_retrieval": "abb70f7325ff",
    "missing_duplicate": "a04a79b12ab5",
    "mode": "111510d77edc",
    "modular_arithmetic": "37cf04e9d1a0",
    "modular_arithmetic_brackets": "06bc87472073",
    "mqmtar": "8c7ad9e334e1",
    "n_back": "8f5352762815",
    "odds_first": "1c74da5cdb47",
    "parity": "ba9e70f12678",
    "recognition": "b1bca44ff023",
    "reverse": "9fbb33b0826a",
    "solve_equation": "ee359368c93d",
    "sort": "76e065b2d25e",
    "stack_manipulation": "ba92eb9123b1",
    "word_problem": "7dc2e859cf19",
    "ffl": "7c1fefea19aa",
    "mqar": "2ace695564fd",
    "fuzzy_recall": "f14e247803df",
    "selective_copy": "bc35fd6ce822",
    "ngram_lookup": "d0f3f328c3e1",
    "needle": "5cd8340f2023",
    "variable_tracking": "9b4e345562c4",
    "lego": "21a7d81ae878",
    "path_star": "d7928b96ba98",
    "dyck_bracket": "335652e3bd59",
    "count": "fb63c3748fae",
    "histogram": "031053360643",
}


def test_fingerprints(task_class):
    """A change here is a change of the data of every finished run: say so where it is made."""
    task, digest = task_class(), hashlib.sha256()
    batches = train_batch(task, 0, 3, 8, 32, 64), eval_batch(task, 0, "test", 128, 60, 8)
    for array in (*batches[0][:3], *batches[1][:3]):
        digest.update(array.astype("<i8").tobytes())
    if task.name in FINGERPRINTS:
        assert digest.hexdigest()[:12] == FINGERPRINTS[task.name]


def test_numpy_integers_address_the_same_data():
    plain, boxed = train_rng(3, 5), train_rng(np.int64(3), np.int64(5))
    assert plain.random() == boxed.random()


def test_training_batches_are_reproducible(task):
    one, two = (train_batch(task, 1, 9, 16, 40, 60) for _ in range(2))
    for a, b in zip(one[:3], two[:3], strict=True):
        assert a.flags.writeable
        np.testing.assert_array_equal(a, b)
    for other in (train_batch(task, 2, 9, 16, 40, 60), train_batch(task, 1, 10, 16, 40, 60)):
        assert one.inputs.tobytes() != other.inputs.tobytes()


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_partition_the_batch(task, world):
    whole = train_batch(task, 0, 4, 16, 40, 60)
    count = 0
    for rank in range(world):
        part = train_batch(task, 0, 4, 16, 40, 60, rank=rank, world=world)
        rows = slice(rank, None, world)
        width = part.inputs.shape[1]
        np.testing.assert_array_equal(part.lengths, whole.lengths[rows])
        np.testing.assert_array_equal(part.inputs, whole.inputs[rows, :width])
        np.testing.assert_array_equal(part.labels, whole.labels[rows, :width])
        assert (whole.inputs[rows, width:] == task.pad).all()
        count += len(part.lengths)
    assert count == 16


def test_evaluation_samples_do_not_depend_on_batches(task):
    whole = eval_batch(task, 0, "test", 48, 0, 3 * BLOCK)
    stream = EvalStream(task, 0, "test", 48)
    for start, count in [(0, 1), (1, 62), (63, 2), (65, 63), (100, 92), (0, 129), (64, 64)]:
        for part in (stream.batch(start, count), eval_batch(task, 0, "test", 48, start, count)):
            rows, width = slice(start, start + count), part.inputs.shape[1]
            np.testing.assert_array_equal(part.inputs, whole.inputs[rows, :width])
            np.testing.assert_array_equal(part.labels, whole.labels[rows, :width])
            assert (whole.inputs[rows, width:] == task.pad).all()
            assert width == whole.inputs.shape[1] or task.variable_length
            assert (part.lengths == 48).all()
            assert len(part.lengths) == count


def test_a_stream_draws_each_block_once(monkeypatch):
    calls = []
    sample = Sort.sample
    monkeypatch.setattr(Sort, "sample", lambda *args: calls.append(1) or sample(*args))
    stream = EvalStream(Sort(), 0, "validation", 30)
    for start in range(0, 200, 5):
        stream.batch(start, 5)
    assert len(calls) == -(-200 // BLOCK)


def test_training_lengths_are_uniform_and_inclusive():
    lengths = np.concatenate([train_batch(Sort(), 0, t, 128, 32, 40).lengths for t in range(100)])
    counts = np.bincount(lengths)[32:]
    assert len(counts) == 9
    expected = len(lengths) / 9
    assert ((counts - expected) ** 2 / expected).sum() < 8 + 5 * 4


def test_one_length_per_batch():
    batches = [train_batch(Sort(), 0, t, 16, 32, 40, per="batch") for t in range(200)]
    assert all(len(set(batch.lengths)) == 1 for batch in batches)
    assert {batch.lengths[0] for batch in batches} == set(range(32, 41))


def used_words(batch):
    """The keys that an MQMTAR batch of the default sizes asks for."""
    questions = batch.inputs[:, 1 : 1 + MQMTAR().source_length(64)][:, -12:].reshape(-1, 3)
    return {tuple(word) for word in questions[:, 1:].tolist()}


def test_mqmtar_splits_have_words_of_their_own():
    known = {tuple(word) for word in _words("key", 2, 10_000, 256, 0, "train").tolist()}
    assert len(known) == 10_000
    task = MQMTAR()
    assert used_words(train_batch(task, 0, 0, 128, 64, 64)) <= known
    asked = used_words(eval_batch(task, 0, "test", 64, 0, 256))
    assert len(asked & known) / len(asked) == pytest.approx(10_000 / 65_536, abs=0.06)
    # All lengths of a split share its words; the seed of the evaluation does not choose them.
    test = {tuple(word) for word in _words("key", 2, 10_000, 256, 0, "test").tolist()}
    assert used_words(eval_batch(task, 5, "test", 64, 0, 256)) <= test
    shared = MQMTAR(fresh_words=False)
    assert used_words(eval_batch(shared, 0, "test", 64, 0, 256)) <= known


def test_mqmtar_uses_every_word_if_all_exist():
    assert sorted(_words("key", 2, 16, 4, 0, "train").tolist()) == [
        [a, b] for a in range(3, 7) for b in range(3, 7)
    ]


def test_no_sample_of_one_split_is_one_of_another() -> None:
    """Long enough that two samples are equal only if they were drawn from the same stream."""
    task, length, count = Copy(), 64, 512
    splits = {name: eval_batch(task, 0, name, length, 0, count) for name in ("validation", "test")}
    drawn = {name: {row.tobytes() for row in batch.inputs} for name, batch in splits.items()}
    drawn["train"] = {
        row.tobytes() for t in range(4) for row in train_batch(task, 0, t, 128, 64, 64).inputs
    }
    assert all(len(samples) == count for samples in drawn.values())
    assert len(set.union(*drawn.values())) == 3 * count
