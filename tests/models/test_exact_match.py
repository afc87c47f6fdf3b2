"""Exact match by one teacher-forced pass is exact match by greedy decoding."""

from functools import cache

import numpy as np
import pytest
import torch
from oracles.registered import label, labels
from sampling import sampled
from torch.nn import functional as F

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.stick_breaking import StickBreaking
from lcg.attention.scalings import AdaptiveScaling, NoScaling
from lcg.config.schema import Model
from lcg.evaluation.scoring import (
    Score,
    edit_distances,
    score_greedy,
    score_teacher_forcing,
    scored_positions,
)
from lcg.models.transformer import Decoder
from lcg.positional.groups import NAPE
from lcg.positional.rotary import RoPE
from lcg.tasks.base import IGNORE
from lcg.tasks.copy import Copy
from lcg.tasks.flip_flop import FlipFlop

METHODS = {
    "softmax-nape": (Attention(Softmax()), NAPE()),
    "asentmax-nape": (Attention(Entmax(), AdaptiveScaling()), NAPE()),
    "stick_breaking-rope": (Attention(StickBreaking(), NoScaling()), RoPE()),
}
TASK = Copy(symbols=2)


def samples(task, seed, length, batch):
    encoded = task.encode(np.random.default_rng(seed), np.full(batch, length))
    return torch.from_numpy(encoded.inputs), torch.from_numpy(encoded.labels)


@cache
def trained(method, steps):
    """A small model after some steps of copying one to four symbols."""
    torch.manual_seed(0)
    model = Decoder(Model(d_model=32, heads=4, d_ff=64), *METHODS[method], TASK.vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        inputs, labels = samples(TASK, step, 1 + step % 4, 32)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("row", sampled(METHODS, [0, 60], seed="exact match"), ids=labels)
def test_teacher_forcing_and_greedy_decoding_agree(row):
    """On the number right, and on where each sample first goes wrong, at every length."""
    method, steps = row
    model, total = trained(method, steps), Score()
    for length in (1, 2, 4, 7):
        inputs, labels = samples(TASK, 1000 + length, length, 32)
        forced = score_teacher_forcing(model, inputs, labels)
        greedy = score_greedy(model, inputs, labels)
        assert (forced.correct, forced.samples) == (greedy.correct, greedy.samples)
        assert forced.prefix == pytest.approx(greedy.prefix)
        total += forced
    if steps:
        assert 0 < total.correct < total.samples, "all right or all wrong shows nothing"


class Table(torch.nn.Module):
    """Says what is written in a table [b t], whatever it reads."""

    def __init__(self, said, vocabulary=8):
        super().__init__()
        self.logits = F.one_hot(said, vocabulary).float()

    def forward(self, tokens, select=None, cache=None):
        return self.logits if select is None else self.logits[:, select]


def test_a_score_by_hand():
    """Two scored positions out of four; the first sample right, the second half, the third not."""
    labels = torch.tensor([[IGNORE, 1, 2, IGNORE], [IGNORE, 3, 4, IGNORE], [IGNORE, 5, 6, IGNORE]])
    said = torch.tensor([[0, 1, 2, 0], [0, 3, 5, 0], [0, 4, 6, 0]])
    assert scored_positions(labels).tolist() == [1, 2]
    score = score_teacher_forcing(Table(said), torch.zeros_like(labels), labels)
    assert (score.samples, score.correct, score.positions, score.right) == (3, 1, 6, 4)
    assert score.prefix == pytest.approx(1 + 0.5 + 0)
    assert score.finite and score.close_calls == 0
    assert (score + score).correct == 2 and (score + score).prefix == pytest.approx(3)


def test_close_calls_and_numbers_that_are_not_finite_are_seen():
    labels = torch.tensor([[1, 2]])
    model = Table(torch.tensor([[1, 2]]))
    model.logits[0, 0, 3] = 1 - 5e-5
    assert score_teacher_forcing(model, labels, labels).close_calls == 1
    model.logits[0, 1, 0] = torch.nan
    assert not score_teacher_forcing(model, labels, labels).finite


@pytest.mark.parametrize("task", [Copy(symbols=3), FlipFlop()], ids=label)
def test_greedy_decoding_starts_from_the_source_alone(task):
    """The tokens in the target's place are never read."""
    torch.manual_seed(0)
    model = Decoder(Model(d_model=16, heads=4), *METHODS["softmax-nape"], task.vocabulary).eval()
    inputs, labels = samples(task, 0, 6, 8)
    first = int(scored_positions(labels)[0])
    spoiled = inputs.clone()
    spoiled[:, first + 1 :] = task.pad
    assert score_greedy(model, inputs, labels) == score_greedy(model, spoiled, labels)


def by_hand(score):
    """The parts and the distances that have some positions."""
    return {
        name: {i: pair for i, pair in enumerate(getattr(score, name).tolist()) if pair[1]}
        for name in ("by_part", "by_distance")
    }


def test_without_eos_by_part_and_by_distance_by_hand():
    """Ten scored positions of which the fourth is wrong, and a row wrong at EOS alone."""
    eos, labels = 7, torch.tensor([[1, 2, 3, 4, 5, 1, 2, 3, 4, 7], [1, 2, 3, 4, 5, 1, 2, 3, 4, 7]])
    said, distance = labels.clone(), torch.tensor([[0, 1, 2, 3, 4, 7, 8, 15, 16, -1]] * 2)
    said[0, 3], said[1, 9] = 0, 0
    score = score_teacher_forcing(Table(said), labels, labels, eos=eos, distance=distance)
    assert (score.correct, score.oracle) == (0, 1)
    twice = {part: [2, 2] for part in range(10)}
    assert by_hand(score) == {
        "by_part": twice | {3: [1, 2], 9: [1, 2]},
        # below 1, 2, 4, 8, 16 and 32; EOS depends on nothing
        "by_distance": {0: [2, 2], 1: [2, 2], 2: [3, 4], 3: [4, 4], 4: [4, 4], 5: [2, 2]},
    }
    few = score_teacher_forcing(Table(said[:, :9]), labels[:, :9], labels[:, :9])
    assert by_hand(few) == {"by_part": {}, "by_distance": {}} and few.oracle == few.correct == 1


def levenshtein(a, b):
    """The definition, without a table."""
    if not a or not b:
        return len(a) + len(b)
    replaced = levenshtein(a[1:], b[1:]) + (a[0] != b[0])
    return min(replaced, levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1)


def test_edit_distances_are_those_of_the_definition():
    rng = torch.Generator().manual_seed(0)
    target, said = (torch.randint(3, (60, 6), generator=rng) for _ in range(2))
    target[::2, 4:] = IGNORE
    expected = []
    for a, b in zip(said.tolist(), target.tolist(), strict=True):
        kept = [i for i, label in enumerate(b) if label != IGNORE]
        expected.append(levenshtein([a[i] for i in kept], [b[i] for i in kept]) / len(kept))
    assert edit_distances(said, target).tolist() == pytest.approx(expected)
    assert len(set(expected)) > 5
