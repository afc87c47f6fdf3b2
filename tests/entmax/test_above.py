"""Rows solved from a known edge: as by definition, whatever the edge."""

import numpy as np
import pytest
import torch
from oracles.entmax import entmax_row

from lcg.entmax import edge_below, entmax, entmax_above

ALPHAS = (1.5, 2.0)


def rows(kind: str) -> torch.Tensor:
    torch.manual_seed(0)
    z = torch.randn(7, 3001)
    if kind == "tied":
        z = z.round()
    elif kind == "equal":
        z = torch.full_like(z, 3.0)
    elif kind == "large":
        z = z * 100
    elif kind == "dense":
        z = z * 1e-3
    elif kind == "one above near ties":
        z = z * 1e-6
        z[:, 5] = 1.9999
    elif kind == "masked":
        z[:, 1000:] = -torch.inf
        z[2] = -torch.inf
    elif kind == "single":
        z = z[:, :1]
    return z


KINDS = (
    "random", "tied", "equal", "large", "dense", "one above near ties", "masked", "single",
)  # fmt: skip


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_gradients_are_those_of_the_definition(alpha, kind):
    z = rows(kind).requires_grad_()
    expected = np.stack([entmax_row(row, alpha) for row in z.detach().numpy()])
    edge = edge_below(z.detach(), alpha)
    assert ((expected > 0) <= (z >= edge).numpy()).all(), "the edge cuts the support"
    torch.manual_seed(1)
    cotangent = torch.randn_like(z)
    (exact,) = torch.autograd.grad(entmax(z.double(), alpha), z, cotangent.double())
    for start in (edge, torch.where(edge.isfinite(), edge - 0.3, edge), None):
        weights = entmax_above(z.clone(), start, alpha)
        assert np.abs(weights.detach().numpy() - expected).max() < 1e-6
        total = weights.sum(-1)
        assert ((total - 1).abs() < 1e-6).logical_or(total == 0).all()
        (gradient,) = torch.autograd.grad(weights, z, cotangent)
        # Where 3,000 keys lie at the very edge, rounding of an edge near 2 shows in their sum.
        assert (gradient - exact).abs().max() < (2e-3 if "near ties" in kind else 1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_part_of_a_row_has_an_edge_below_that_of_the_row(alpha):
    z = rows("random")
    assert (edge_below(z[:, ::16], alpha) <= edge_below(z, alpha) + 1e-2).all()
    expected = np.stack([entmax_row(row, alpha) for row in z.numpy()])
    assert ((expected > 0) <= (z >= edge_below(z[:, ::16], alpha)).numpy()).all()


@pytest.mark.parametrize("keys", [3, 17, 3001])
@pytest.mark.parametrize("edge", [torch.full((7, 1), -3.0), None], ids=["edge", "none"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_row_with_nan_is_nan(keys, edge, alpha):
    z = rows("random")[:, :keys].contiguous()
    z[3, keys // 2] = torch.nan
    z[5, -1] = torch.nan
    weights = entmax_above(z.clone(), edge, alpha)
    broken = torch.isin(torch.arange(7), torch.tensor([3, 5]))
    assert weights[broken].isnan().all() and weights[~broken].isfinite().all()


@pytest.mark.parametrize("solve", [entmax, lambda z, alpha: entmax_above(z, None, alpha)])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_torch_without_the_fused_sum_gives_the_same(monkeypatch, solve, alpha):
    z = rows("random")
    fused = solve(z.clone(), alpha)
    monkeypatch.delattr(torch, "_add_relu")
    assert torch.equal(solve(z.clone(), alpha), fused)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rows_of_which_nothing_is_known(alpha):
    """Below 0, where an edge of 0 would leave nothing."""
    z = rows("random") - 9
    edge = edge_below(z, alpha)
    edge[2:5] = -torch.inf
    exact = np.stack([entmax_row(row, alpha) for row in z.numpy()])
    assert np.abs(entmax_above(z.clone(), edge, alpha).numpy() - exact).max() < 1e-6
