"""entmax inside torch.func and torch.vmap, against loops over plain calls."""

import pytest
import torch
from torch.func import grad, hessian, jacrev, jvp, vjp, vmap

from lcg.entmax import entmax

ALPHAS = [1.0, 1.3, 1.5, 2.0, 3.0]


def scores(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def plain_gradients(z, alpha, cotangent):
    """Return the gradients of one call: in the scores and, of a tensor, in alpha."""
    leaves = [z.detach().clone().requires_grad_()]
    if isinstance(alpha, torch.Tensor):
        leaves.append(alpha.detach().clone().requires_grad_())
        alpha = leaves[1]
    return torch.autograd.grad(entmax(leaves[0], alpha), leaves, cotangent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_vmap_is_a_loop(alpha, dtype):
    z = scores(3, 4, 6).to(dtype)
    assert torch.equal(vmap(lambda x: entmax(x, alpha))(z), entmax(z, alpha))
    across = vmap(lambda x: entmax(x, alpha, 0), in_dims=2, out_dims=2)(z)
    assert torch.equal(across, entmax(z, alpha, 0))
    nested = vmap(vmap(lambda x: entmax(x, alpha)), in_dims=1, out_dims=1)(z)
    assert torch.equal(nested, entmax(z, alpha))


def test_vmap_over_alpha():
    z, alphas = scores(4, 6), torch.tensor([1.2, 1.5, 1.9])
    found = vmap(lambda a: entmax(z, a))(alphas)
    expected = torch.stack([entmax(z, a) for a in alphas])
    assert (found - expected).abs().max() <= 1e-6
    both = vmap(entmax)(z[:3], alphas)
    assert (both - torch.stack(list(map(entmax, z[:3], alphas)))).abs().max() <= 1e-6
    small = vmap(lambda e: entmax(z, alpha_minus_one=e))(torch.tensor([1e-4, 0.5, 3.0]))
    assert (small[2] - entmax(z, 4.0)).abs().max() <= 1e-6
    with pytest.raises(ValueError, match="got 40"):
        vmap(lambda a: entmax(z, a))(torch.tensor([1.5, 40.0]))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("learned", [False, True])
def test_gradients(alpha, learned):
    z, cotangent = scores(5, 6), scores(2, 5, 6)[1]
    alpha = torch.tensor(alpha) if learned else alpha
    wanted = plain_gradients(z, alpha, cotangent)

    def loss(z, alpha):
        return (entmax(z, alpha) * cotangent).sum()

    arguments = (0, 1) if learned else (0,)
    found = grad(loss, arguments)(z, alpha)
    _, pull = vjp(
        lambda *given: entmax(*given, *((alpha,) * (2 - len(given)))), z, *[alpha][:learned]
    )
    for got, also, want in zip(found, pull(cotangent), wanted, strict=True):
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(also, want)

    each = vmap(grad(lambda z, alpha, g: (entmax(z, alpha) * g).sum(), arguments), (0, None, 0))
    rows = [plain_gradients(z[i], alpha, cotangent[i]) for i in range(len(z))]
    for got, want in zip(each(z, alpha, cotangent), zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(got, torch.stack(want), rtol=1e-4, atol=1e-5)

    jacobian = jacrev(entmax, arguments)(z[0], alpha)
    units = [plain_gradients(z[0], alpha, unit) for unit in torch.eye(6)]
    for got, want in zip(jacobian, zip(*units, strict=True), strict=True):
        torch.testing.assert_close(got, torch.stack(want), rtol=1e-4, atol=1e-5)


def test_a_square_s_gradient_passes_through_twice_used_weights():
    z = scores(4, 6)
    found = grad(lambda z: entmax(z, 1.5).square().sum())(z)
    leaf = z.clone().requires_grad_()
    entmax(leaf, 1.5).square().sum().backward()
    torch.testing.assert_close(found, leaf.grad)
    per_sample = vmap(grad(lambda z: entmax(z, 1.5).square().sum()))(z)
    torch.testing.assert_close(per_sample, leaf.grad)


def test_second_derivatives_and_forward_mode_are_refused_in_one_line():
    z = scores(6)

    def loss(z):
        return entmax(z, 1.5).square().sum()

    refused = {
        "second derivative": lambda: grad(lambda z: grad(loss)(z).sum())(z),
        "forward-mode": lambda: jvp(loss, (z,), (z,)),
        "differentiate backwards": lambda: hessian(loss)(z),
    }
    leaf = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    refused["once"] = lambda: first.sum().backward()
    for message, call in refused.items():
        with pytest.raises(RuntimeError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
