"""The measures against loops over rows, one number at a time."""

import math

import numpy as np
import pytest
import torch

from lcg.diagnostics import heads as measures

ROWS = torch.tensor(
    [
        [0.0, 0.0, 0.0, 0.0],  # a query that sees nothing
        [1.0, 0.0, 0.0, 0.0],
        [0.25, 0.75, 0.0, 0.0],
        [1.5, 0.0, 0.5, 1.0],  # ReLU: no sum of one
        [0.25, 0.25, 0.25, 0.25],
        [1e-20, 0.0, 1e-30, 0.1],
    ]
)
VISIBLE = torch.tensor([0, 1, 2, 3, 4, 4])


def naive_entropy(row, n):
    total = sum(row)
    if total == 0 or n < 2:
        return math.nan
    return -sum(w / total * math.log(w / total) for w in row if w > 0) / math.log(n)


@pytest.mark.parametrize("seed", range(3))
def test_entropy(seed):
    expected = [naive_entropy(r, n) for r, n in zip(ROWS.tolist(), VISIBLE.tolist(), strict=True)]
    found = measures.normalised_entropy(ROWS, VISIBLE).tolist()
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    weights = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    weights *= weights > 0.5
    visible = torch.arange(3, 10)
    found = measures.normalised_entropy(weights, visible)
    for index in np.ndindex(2, 3, 7):
        expected = naive_entropy(weights[index].tolist(), int(visible[index[2]]))
        assert found[index].item() == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_range_and_rho():
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(2, 5, 6, generator=generator) + 7
    visible = torch.ones(5, 6, dtype=torch.bool).tril()
    scores[:, ~visible] = -torch.inf
    delta, rho = measures.logit_range(scores, visible), measures.rho(scores, visible)
    for b, i in np.ndindex(2, 5):
        row = [scores[b, i, j].item() for j in range(i + 1)]
        if i == 0:
            assert math.isnan(delta[b, i]) and math.isnan(rho[b, i])
            continue
        assert delta[b, i].item() == pytest.approx(max(row) - min(row), rel=1e-5)
        expected = (max(row) - min(row)) / (2 * np.std(row) * math.sqrt(2 * math.log(i + 1)))
        assert rho[b, i].item() == pytest.approx(expected, rel=1e-4)
    assert math.isnan(measures.rho(torch.full((1, 4), 0.3), torch.ones(1, 4, dtype=torch.bool)))


def test_rho_of_scores_that_are_equal_up_to_rounding_is_nothing():
    scores = torch.tensor([[3.0, 3.0], [3.0, 3.0 + 5e-7], [0.1, 0.1], [3.0, 3.1]])
    seen = torch.ones(4, 2, dtype=torch.bool)
    assert measures.rho(scores, seen).isnan().tolist() == [True, True, True, False]
    thrice = torch.full((1, 3), 0.1)  # whose mean is rounded
    assert measures.rho(thrice, thrice > 0).isnan().all()


def test_rho_of_gaussian_scores_nears_one():
    scores = torch.randn(64, 20_000, generator=torch.Generator().manual_seed(0))
    rho = measures.rho(scores, torch.ones_like(scores, dtype=torch.bool))
    assert 0.85 < rho.mean() < 1.0  # it nears its limit from below, and slowly


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 1000])
def test_quantiles_are_values_with_that_share_at_or_below(count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    shares = {"low": 0.05, "half": 0.5, "high": 0.95, "max": 1.0}
    ordered = sorted(values.tolist())
    expected = {
        name: next(v for i, v in enumerate(ordered) if (i + 1) / count >= share - 1e-12)
        for name, share in shares.items()
    }
    assert measures.quantiles(values, shares) == expected
