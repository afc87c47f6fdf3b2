"""α = 1 + sigmoid(a) of each head: its gradient in a against central differences, in float64."""

import math

import pytest
import torch
from oracles.entmax import entmax_rows

from lcg.attention.normalizers.entmax import LearnedEntmax
from lcg.positional.base import Sizes

A = (-6.0, -4.0, -1.5, 0.0, 1.0, 4.0)  # sigmoid(-6) is below the floor
QUERIES, KEYS = 5, 9


def alpha_of(a, floor):
    return 1 + max(1 / (1 + math.exp(-a)), floor)


@pytest.mark.parametrize("floor", [0.01, 0.2])
def test_gradient_in_a_per_head(floor):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, len(A), QUERIES, KEYS, generator=generator, dtype=torch.float64) * 2
    scores[..., 0, 4:] = -torch.inf
    grad = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
    a = torch.tensor(A, dtype=torch.float64, requires_grad=True)
    normalizer = LearnedEntmax(floor=floor)
    (normalizer(scores, torch.arange(KEYS), {"a": a}) * grad).sum().backward()

    h, expected = 1e-5, []
    for head, value in enumerate(A):
        own = scores[:, head].reshape(-1, KEYS).numpy()
        upper, lower = (entmax_rows(own, alpha_of(value + s * h, floor)) for s in (1, -1))
        slope = torch.from_numpy(upper - lower) / (2 * h)
        expected.append(float((slope * grad[:, head].reshape(-1, KEYS)).sum()))
    largest = max(map(abs, expected))
    assert a.grad.tolist() == pytest.approx(expected, abs=1e-6 * largest)
    below = [alpha_of(value, 0) - 1 < floor for value in A]
    assert [g == 0 for g in a.grad.tolist()] == below
    assert any(below) and not all(below)


def test_how_a_starts():
    sizes = Sizes(heads=400, kv_heads=400, head_dim=2, d_model=8)
    torch.manual_seed(0)
    drawn = LearnedEntmax().learned(sizes)["a"]
    assert abs(drawn.mean()) < 0.2 and abs(drawn.std() - 1) < 0.15
    constant = LearnedEntmax(init="constant", alpha=1.3)
    alphas = 1 + constant.alpha_minus_one(constant.learned(sizes))
    torch.testing.assert_close(alphas, torch.full((400, 1, 1), 1.3))


@pytest.mark.parametrize("a", [-1e4, -30.0, 30.0, 1e4, float("nan")])
def test_alpha_stays_in_its_range_wherever_a_goes(a):
    normalizer = LearnedEntmax()
    value = 1 + normalizer.alpha_minus_one({"a": torch.tensor([a])})
    assert 1.01 - 1e-6 <= value.item() <= 2
