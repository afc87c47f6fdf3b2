"""Gradients of lcg.entmax in scores and alpha against central differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.entmax import entmax_rows
from torch import Tensor

from lcg.entmax import entmax

ALPHAS = [1.0, 1.01, 1.02, 1.05, 1.3, 1.5, 1.7, 2.0, 3.0, 4.0, 8.0, 32.0]


def scores_for(alpha: float, seed: int = 1) -> Tensor:
    """Rows with several keys in the support; above alpha = 2 that takes close scores."""
    scale = 2.0 if alpha <= 2 else 0.5 / alpha**0.7
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 7, generator=generator, dtype=torch.float64) * scale


def incoming(*shape: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_in_the_scores(alpha: float) -> None:
    z = scores_for(alpha).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: entmax(s, alpha), (z,), atol=1e-5, rtol=1e-4)
    mixed = torch.tensor([[alpha], [1.2], [1.0], [4.0], [2.0]])
    assert torch.autograd.gradcheck(lambda s: entmax(s, mixed)[:1], (z,), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS[1:])
def test_gradient_in_alpha(alpha: float) -> None:
    z, grad, h = scores_for(alpha), incoming(5, 7), 1e-5
    upper, lower = (entmax_rows(z.numpy(), alpha + sign * h) for sign in (1, -1))
    expected = (torch.from_numpy(upper - lower) * grad).sum(-1, keepdim=True) / (2 * h)
    for name in ("alpha", "alpha_minus_one"):
        value = torch.full((5, 1), alpha, dtype=torch.float64)
        if name == "alpha_minus_one":
            value = value - 1
        value.requires_grad_()
        (entmax(z, **{name: value}) * grad).sum().backward()
        assert value.grad is not None
        assert (value.grad - expected).abs().max() <= 1e-6 * expected.abs().max()

    value = torch.full((5, 1), alpha - 1, dtype=torch.float32).requires_grad_()
    narrow = z.float()
    (entmax(narrow, alpha_minus_one=value) * grad.float()).sum().backward()
    wide = value.detach().double().requires_grad_()
    (entmax(narrow.double(), alpha_minus_one=wide) * grad).sum().backward()
    assert value.grad is not None and wide.grad is not None
    assert (value.grad - wide.grad).abs().max() <= 5e-6 * wide.grad.abs().max()


def test_gradient_in_alpha_at_and_near_softmax() -> None:
    """The limit (h_i log p_i - p_i sum_j h_j log p_j) / 2, h = -p log p, and float32 beside it."""
    z, grad = scores_for(1.0), incoming(5, 7)
    p = torch.softmax(z, -1)
    h_log = -p * p.log().square()
    limit = (grad * (h_log - p * h_log.sum(-1, keepdim=True)) / 2).sum()
    for epsilon in (0.0, 1e-14, 1e-9, 1e-7):
        for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
            value = torch.tensor(epsilon, dtype=dtype, requires_grad=True)
            (entmax(z.to(dtype), alpha_minus_one=value) * grad.to(dtype)).sum().backward()
            assert value.grad is not None
            assert abs(value.grad - limit) <= tolerance * abs(limit)
    for epsilon in (4.5e-5, 1e-3, 1e-2):
        values = []
        for dtype in (torch.float64, torch.float32):
            value = torch.tensor(epsilon, dtype=dtype, requires_grad=True)
            (entmax(z.to(dtype), alpha_minus_one=value) * grad.to(dtype)).sum().backward()
            values.append(value.grad)
        assert abs(values[0] - values[1]) <= 1e-5 * abs(values[0])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_float32_gradients(alpha: float) -> None:
    z = scores_for(alpha).float().requires_grad_()
    grad = incoming(5, 7)
    entmax(z, alpha).backward(grad.float())
    wide = z.detach().double().requires_grad_()
    entmax(wide, alpha).backward(grad)
    assert z.grad is not None and wide.grad is not None
    assert (z.grad - wide.grad).abs().max() <= 2e-6 * wide.grad.abs().max()


def test_gradient_has_the_shape_of_alpha() -> None:
    z, grad = incoming(2, 3, 4, 9, seed=5), incoming(2, 3, 4, 9, seed=6)
    start = torch.tensor([1.2, 1.5, 3.0], dtype=torch.float64).view(3, 1, 1)
    per_head = start.clone().requires_grad_()
    (entmax(z, per_head) * grad).sum().backward()
    per_row = start.expand(2, 3, 4, 1).clone().requires_grad_()
    (entmax(z, per_row) * grad).sum().backward()
    assert per_head.grad is not None and per_row.grad is not None
    assert per_head.grad.shape == (3, 1, 1)
    expected = per_row.grad.sum((0, 2), keepdim=True)[0]
    assert torch.allclose(per_head.grad, expected, rtol=1e-10)
    scalar = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (entmax(z, scalar) * grad).sum().backward()
    assert scalar.grad is not None and scalar.grad.shape == ()


def test_learned_alpha_keeps_its_gradient_through_a_sigmoid() -> None:
    z, grad = incoming(4, 8, seed=7), incoming(4, 8, seed=8)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        a = torch.tensor(-10.0, dtype=dtype, requires_grad=True)
        (entmax(z.to(dtype), alpha_minus_one=torch.sigmoid(a)) * grad.to(dtype)).sum().backward()
        gradients.append(a.grad)
    assert abs(gradients[0] - gradients[1]) <= 1e-5 * abs(gradients[0])


def test_steep_edges_above_alpha_two_stay_finite() -> None:
    """A weight of 1e-9 has u = 1e-9^(2-alpha), 1e270 at alpha = 32; the gradient is ordinary."""
    for alpha in (3.0, 4.0, 8.0, 32.0):
        for smallest in (1e-3, 1e-6, 1e-9):
            gap = ((1 - smallest) ** (alpha - 1) - smallest ** (alpha - 1)) / (alpha - 1)
            z = torch.tensor([[0.0, -gap]], dtype=torch.float64, requires_grad=True)
            p = entmax(z, alpha)
            p.backward(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
            assert z.grad is not None and z.grad.isfinite().all()
            # two keys: dp_0/dz_0 = u_0 u_1 / (u_0 + u_1), with u_1 much the larger here
            u = p[0].detach().log().mul(2 - alpha)
            slope = torch.exp(u[0] + u[1] - torch.logaddexp(u[0], u[1]))
            assert torch.allclose(z.grad[0], torch.stack([slope, -slope]), rtol=1e-6)
        z = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
        a = torch.tensor(alpha, requires_grad=True)
        entmax(z, a)[:, ::2].sum().backward()
        assert z.grad is not None and z.grad.isfinite().all()
        assert a.grad is not None and a.grad.isfinite()


def test_no_grad_and_autocast() -> None:
    z = incoming(8, 16).float().requires_grad_()
    with torch.no_grad():
        assert not entmax(z, 1.3).requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for alpha in (1.0, 1.3, 1.5, 2.0, 3.0):
            p = entmax(z, alpha)
            assert p.dtype == torch.float32
            assert (p.double().sum(-1) - 1).abs().max() <= 1e-6
            (grad,) = torch.autograd.grad(p[:, 0].sum(), z)
            assert grad.dtype == torch.float32 and grad.isfinite().all()


def test_a_second_derivative_is_refused() -> None:
    z = scores_for(1.5).requires_grad_()
    (first,) = torch.autograd.grad(entmax(z, 1.5).square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        first.sum().backward()


def test_compiled_without_graph_breaks() -> None:
    compiled = torch.compile(entmax, backend="aot_eager", fullgraph=True)
    grad = incoming(2, 3, 8, 16)
    for alpha, dtype in ((1.5, torch.float32), (1.3, torch.bfloat16), (3.0, torch.float32)):
        z = incoming(2, 3, 8, 16, seed=9).to(dtype).requires_grad_()
        p, q = compiled(z, alpha), entmax(z, alpha)
        assert torch.equal(p, q)
        (a,) = torch.autograd.grad(p, z, grad.to(dtype))
        (b,) = torch.autograd.grad(q, z, grad.to(dtype))
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("alpha", ALPHAS)
def test_cuda_agrees_with_the_definition(alpha: float) -> None:
    z = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * 2
    z[0] = -torch.inf
    expected = torch.from_numpy(entmax_rows(z.double().numpy(), alpha))
    for given in (alpha, torch.full((64, 1), alpha, dtype=torch.float64)):
        on_cpu = z.clone().requires_grad_()
        on_gpu = z.cuda().requires_grad_()
        p = entmax(on_gpu, given)
        assert (p.cpu() - expected).abs().max() <= 1e-6
        grad = torch.randn(64, 300, generator=torch.Generator().manual_seed(1))
        entmax(on_cpu, given).backward(grad)
        p.backward(grad.cuda())
        scale = on_cpu.grad.abs().amax(-1, keepdim=True).clamp(min=1)
        assert ((on_gpu.grad.cpu() - on_cpu.grad) / scale).abs().max() <= 1e-4
    if 1 < alpha <= 2:
        learned = torch.full((64, 1), alpha, device="cuda", requires_grad=True)
        (entmax(z.cuda(), learned)[:, ::2]).sum().backward()
        assert np.isfinite(learned.grad.cpu().numpy()).all()
