"""Position ids of a batch: from the task, from an encoding's draw, and from both."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from lcg.positional.base import PositionEncoding
from lcg.positional.groups import Heads, Layers
from lcg.positional.nope import NoPE
from lcg.tasks.copy import Copy
from lcg.tasks.streams import BLOCK, eval_batch, train_batch


@dataclass
class Drawn(PositionEncoding):
    """A sorted subset of 0 … 499 for each row."""

    name: ClassVar[str] = "drawn"

    def draw_positions(self, rng, lengths, training):
        found = np.zeros((len(lengths), lengths.max()), np.int64)
        for row, length in zip(found, lengths, strict=True):
            row[:length] = np.sort(rng.choice(500, length, replace=False))
        return found + 1000 * training


@dataclass
class Backwards(Copy):
    """Tokens numbered from the right."""

    name: ClassVar[str] = "backwards"

    def position_ids(self, batch, rng, training):
        return np.tile(np.arange(batch.inputs.shape[1])[::-1], (len(batch.inputs), 1))


@dataclass
class Leveled(Copy):
    """Two levels of ids, the second seen by embeddings alone."""

    name: ClassVar[str] = "leveled"

    def position_ids(self, batch, rng, training):
        order = np.broadcast_to(np.arange(batch.inputs.shape[1]), batch.inputs.shape)
        return np.stack([order, order // 2], axis=1)


def evaluated(task, start, count, position=None, length=9, seed=0, split="test"):
    return eval_batch(task, seed, split, length, start, count, position=position)


def test_tokens_have_no_ids_unless_someone_numbers_them():
    assert train_batch(Copy(), 0, 0, 8, 4, 9).ids is None
    assert train_batch(Copy(), 0, 0, 8, 4, 9, position=NoPE()).ids is None
    assert evaluated(Copy(), 0, 8, NoPE()).ids is None


def test_a_draw_goes_by_its_address_however_samples_are_batched():
    whole = evaluated(Copy(), 0, 2 * BLOCK, Drawn())
    assert whole.ids.shape == whole.inputs.shape
    for start, count in ((0, 1), (5, 3), (BLOCK - 2, 4), (BLOCK, BLOCK)):
        part = evaluated(Copy(), start, count, Drawn())
        assert np.array_equal(part.ids, whole.ids[start : start + count])
    assert len({row.tobytes() for row in whole.ids}) == 2 * BLOCK
    for other in ({"seed": 1}, {"split": "validation"}):
        assert not np.array_equal(evaluated(Copy(), 0, 4, Drawn(), **other).ids, whole.ids[:4])


def test_a_training_draw_goes_by_seed_step_and_row():
    whole = train_batch(Copy(), 0, 3, 8, 4, 9, position=Drawn())
    for rank in range(2):
        part = train_batch(Copy(), 0, 3, 8, 4, 9, rank=rank, world=2, position=Drawn())
        assert np.array_equal(part.ids, whole.ids[rank::2, : part.inputs.shape[1]])
    assert whole.ids.min() >= 0 and whole.ids.max() >= 1000, "drawn as for training"
    for seed, step in ((1, 3), (0, 4)):
        other = train_batch(Copy(), seed, step, 8, 9, 9, position=Drawn())
        assert not np.array_equal(
            other.ids, train_batch(Copy(), 0, 3, 8, 9, 9, position=Drawn()).ids
        )


def test_the_draw_does_not_change_the_samples():
    plain, drawn = (train_batch(Copy(), 0, 3, 8, 4, 9, position=p) for p in (None, Drawn()))
    assert np.array_equal(plain.inputs, drawn.inputs) and np.array_equal(plain.labels, drawn.labels)


@pytest.mark.parametrize("position", [Heads([Drawn(), NoPE()]), Layers([NoPE(), Drawn()])])
def test_a_composed_encoding_draws_as_its_member(position):
    expected = evaluated(Copy(), 0, 4, Drawn()).ids
    assert np.array_equal(evaluated(Copy(), 0, 4, position).ids, expected)


def test_ids_of_the_task_and_draws_go_together():
    """Id n of the task is the n-th that is drawn."""
    task = Backwards()
    own, drawn = evaluated(task, 0, 4), evaluated(task, 0, 4, Drawn())
    assert own.ids[0].tolist() == list(range(own.ids.shape[1]))[::-1]
    assert (np.diff(drawn.ids, axis=1) < 0).all()
    assert np.array_equal(drawn.ids[:, ::-1], evaluated(Copy(), 0, 4, Drawn()).ids)


def test_levels_of_ids_are_kept_by_row():
    whole = evaluated(Leveled(), 0, BLOCK + 3)
    assert whole.ids.shape == (BLOCK + 3, 2, whole.inputs.shape[1])
    assert np.array_equal(evaluated(Leveled(), BLOCK - 1, 3).ids, whole.ids[BLOCK - 1 : BLOCK + 2])


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (
            np.zeros(4, np.int64),
            r"Wrong\.position_ids\(\) returned \[4\] of int64, expected numbers",
        ),
        (np.zeros((64, 3), np.int64), r"returned \[64, 3\] of int64, expected numbers \[64, 20\]"),
        (np.full((64, 20), "a"), r"of <U1, expected numbers"),
        ([[0]], r"returned \[\[0\]\], expected numbers"),
    ],
)
def test_ids_of_another_shape_are_refused(ids, said):
    @dataclass
    class Wrong(Copy):
        name: ClassVar[str] = "wrong"

        def position_ids(self, batch, rng, training):
            return ids

    with pytest.raises(ValueError, match=said):
        evaluated(Wrong(), 0, 4)
