"""Rows of scores of any magnitude: only differences count, as far as the type can tell them."""

import pytest
import torch
from oracles.entmax import entmax_rows

from lcg.attention.backends import blockwise
from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.softmax import Softmax
from lcg.entmax import (
    edge_below,
    entmax,
    entmax_above,
    solver,
    support_edge,
    threshold,
    weights_from_threshold,
)

INF = float("inf")
ALPHAS = [1.0, 1.01, 1.05, 1.3, 1.5, 1.7, 1.99, 2.0, 2.5, 4.0, 32.0]
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 3e-3, torch.float16: 5e-4}


def large_rows(dtype):
    """Rows as other libraries mask them, and their weights."""
    most, size = torch.finfo(dtype).max, min(1e16, torch.finfo(dtype).max / 4)
    third, half = [1 / 3] * 3, [0.5, 0.5, 0.0]
    return [
        ([-most] * 3, third),
        ([size] * 3, third),
        ([most, most, -most], half),
        ([0.0, 0.0, -most], half),
        ([most, most, 0.0], half),
        ([2 * size, 2 * size, size], half),
        ([-INF, -most, -most], [0.0, 0.5, 0.5]),
        ([0.0, -most, -INF], [1.0, 0.0, 0.0]),
        ([-most, most, -INF], [0.0, 1.0, 0.0]),
    ]


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_large_scores(alpha, dtype, reads, monkeypatch):
    """Weights, and the gradients of rows with the same weights."""
    if not reads:
        monkeypatch.setattr(solver, "host_reads_free", lambda tensor: False)
    rows, expected = torch.tensor(large_rows(dtype), dtype=torch.float64).unbind(1)
    cotangent = torch.tensor([0.5, -1.0, 2.0])
    small = expected.log().clamp(min=-1e3).requires_grad_()
    if alpha > 1.04:  # else keys at such a distance have weight
        entmax(small, alpha).backward(cotangent.double().expand_as(small))
    for given in (alpha, torch.full((9, 1), alpha, dtype=torch.float64, requires_grad=True)):
        z = rows.to(dtype, copy=True).requires_grad_()
        p = entmax(z, given)
        assert p.dtype == dtype
        assert (p.double() - expected).abs().max() <= ROUNDING[dtype]
        assert torch.equal(weights_from_threshold(z, threshold(z, given), given), p)
        assert not (p * (z < support_edge(z, given))).any()
        p.backward(cotangent.to(dtype).expand_as(z))
        assert z.grad.isfinite().all() and (z.grad[z == -INF] == 0).all()
        if isinstance(given, torch.Tensor):
            assert given.grad.isfinite().all()
        if alpha > 1.04:
            most = torch.finfo(dtype).max
            wanted = small.grad.clamp(-most, most)
            apart = (z.grad.double() - wanted).abs() / wanted.abs().clamp(min=1)
            assert apart.max() <= 40 * ROUNDING[dtype]


@pytest.mark.parametrize("alpha", [1.01, 1.1, 1.3, 1.5, 1.7, 1.9, 2.0, 3.0, 8.0])
def test_a_shift_that_is_exact_changes_nothing(alpha):
    grid = torch.randint(-3000, 3000, (64, 40), generator=torch.Generator().manual_seed(0))
    z = grid.double() / 1024
    expected = torch.from_numpy(entmax_rows(z.numpy(), alpha))
    for shift in (1e3, 5e3, 2.0**20, 2.0**40, -(2.0**40)):
        p = entmax(z + shift, alpha)
        assert (p - expected).abs().max() <= 1e-11
        assert (p.sum(-1) - 1).abs().max() <= 1e-12
    for shift in (1e3, 2.0**12, -(2.0**13)):
        p = entmax(z.float() + shift, alpha)
        assert (p - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("size", [1e3, 3e7, 1e16, 3.4e38])
def test_from_an_edge(alpha, size):
    """As the blockwise backend solves long rows: edges that are known, or nothing known."""
    z = torch.zeros(3, 600)
    z[0], z[1, :3], z[2, 5:7] = -size, size, torch.finfo(torch.float32).max
    expected = torch.from_numpy(entmax_rows(z.numpy(), alpha)).float()
    edge = edge_below(z, alpha)
    for known in (
        None,
        edge,
        edge - 1e-3 - 1e-5 * edge.abs(),
        edge.masked_fill(z[:, :1] < 0, -INF),
    ):
        leaf = z.clone().requires_grad_()
        p = entmax_above(leaf.clone(), known, alpha)
        assert (p - expected).abs().max() <= 1e-6
        p[:, 1:6].sum().backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize(
    "normalizer", [Softmax(), *map(Entmax, ALPHAS[:-1]), LearnedEntmax()], ids=str
)
@pytest.mark.parametrize("keys", [40, 600])
@pytest.mark.parametrize("backend", ["reference", "blockwise"])
def test_attention_with_large_scores(normalizer, keys, backend, monkeypatch):
    """Half of the keys score `size`, the others half of that; and a bias of finfo.min on all."""
    for name in ("SMALL", "KEPT"):
        monkeypatch.setattr(blockwise, name, 0)
    learned = {"a": torch.tensor([0.4], requires_grad=True)}
    places = torch.arange(keys)
    v = torch.randn(1, 1, keys, 4, generator=torch.Generator().manual_seed(0))
    for size in (1e6, 1e16, 1e30):
        k = (torch.tensor([1.0, 0.5])[places % 2][:, None] * size**0.5).expand(1, 1, keys, 4)
        for sign in (1.0, -1.0):
            q = torch.full((1, 1, 5, 4), sign * size**0.5, requires_grad=True)
            bias = Bias(places[-5:], places, causal=False)
            out = attend(q, k, v, normalizer, bias, learned, backend)
            expected = v[..., int(sign < 0) :: 2, :].mean(dim=2, keepdim=True).expand_as(out)
            assert (out - expected).abs().max() <= 1e-5
            out.sum().backward()
            assert q.grad.isfinite().all()
    least = torch.finfo(torch.float32).min

    def masked(tile, learned):
        return torch.full(tile.distance.shape, least)

    q = torch.zeros(1, 1, 5, 4, requires_grad=True)
    out = attend(q, k, v, normalizer, bias._replace(additive=masked), learned, backend)
    assert (out - v.mean(dim=2, keepdim=True)).abs().max() <= 1e-5
    out.sum().backward()
    assert q.grad.isfinite().all()
