"""Density, confidence, offsets and diversity of heads against loops over rows."""

import math

import numpy as np
import pytest
import torch

from lcg.diagnostics import heads as measures


def random_weights(seed, *shape):
    """Rows of all kinds: dense, sparse, with ties, without any weight; no sum of one."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(shape, generator=generator)
    weights *= weights > torch.rand(shape[:-1], generator=generator)[..., None]
    return (weights * 4).round(decimals=0 if seed else 4) / 4


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def naive_diversity(rows):
    """rows: of one query, a list of weights per head."""
    kept = [[w / sum(row) for w in row] for row in rows if sum(row) > 0]
    if len(kept) < 2:
        return math.nan
    mean = [sum(column) / len(kept) for column in zip(*kept, strict=True)]
    return entropy(mean) - sum(map(entropy, kept)) / len(kept)


@pytest.mark.parametrize("seed", range(3))
def test_diversity_is_that_of_loops(seed):
    weights = random_weights(seed, 2, 3, 5, 7)
    weights[0, :, 0] = 0
    weights[0, :2, 1] = 0
    found = measures.head_diversity(weights)
    for b, i in np.ndindex(2, 5):
        expected = naive_diversity(weights[b, :, i].tolist())
        assert found[b, i].item() == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_diversity_of_identical_and_of_disjoint_heads():
    row = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
    found = measures.head_diversity(row.expand(6, 4, 9))
    assert found.abs().max() < 1e-6
    scaled = row * torch.tensor([0.1, 1.0, 30.0])[:, None, None]  # alike once they sum to one
    assert measures.head_diversity(scaled).abs().max() < 1e-6
    for heads in (2, 3, 5):
        apart = torch.zeros(heads, 2, 3 * heads)
        for head in range(heads):
            apart[head, :, 3 * head : 3 * head + 3] = torch.tensor([0.2, 0.3, 0.5])
        found = measures.head_diversity(apart)
        assert found.tolist() == pytest.approx([math.log(heads)] * 2, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_density_and_confidence_are_those_of_loops(seed):
    weights = random_weights(seed, 2, 3, 5, 7)
    weights[1, 1, 2] = 0
    visible = torch.tensor([0, 3, 4, 6, 7])
    density, confidence = measures.density(weights, visible), measures.confidence(weights)
    for b, h, i in np.ndindex(2, 3, 5):
        row, n = weights[b, h, i].tolist(), int(visible[i])
        share = sum(w > 0 for w in row) / n if n else math.nan
        top = max(row) / sum(row) if sum(row) else math.nan
        assert density[b, h, i].item() == pytest.approx(share, nan_ok=True)
        assert confidence[b, h, i].item() == pytest.approx(top, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_strongest_key_of_ties_is_the_most_recent(seed):
    weights = random_weights(seed, 2, 3, 5, 7)
    weights[1, 2, 3], weights[0, 0, 0] = 0.5, 0
    queries = torch.tensor([0, 2, 3, 5, 6])
    offsets = measures.strongest_offset(weights, queries)
    for index in np.ndindex(2, 3, 5):
        row = weights[index].tolist()
        assert offsets[index].isnan() == (max(row) == 0)
        if max(row) > 0:
            strongest = max(j for j, w in enumerate(row) if w >= max(row) * (1 - 1e-5))
            assert offsets[index] == strongest - int(queries[index[2]])
    assert offsets[1, 2, 3] == 6 - 5


def test_rounding_does_not_choose_the_strongest_key():
    """Weights apart by less than 1e-5 of the largest are equal, others are not."""
    row = torch.tensor([0.2, 0.3, 0.1, 0.3, 0.0])
    for factor, strongest in ((1 - 4e-7, 3), (1 - 9e-6, 3), (1 - 1.2e-5, 1), (1 + 4e-7, 3)):
        weights = row * torch.tensor([1, 1, 1, factor, 1])
        for scale in (1.0, 1e-20, 1e20):
            offsets = measures.strongest_offset(weights[None] * scale, torch.tensor([4]))
            assert offsets.item() == strongest - 4, factor
