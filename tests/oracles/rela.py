"""ReLA and ReLA-g (2104.07012) as their authors compute them.

The formula multiplies a 0/1 mask into the logits before the ReLU, which is not how the backends
hide keys, and treats all queries and keys at once.
"""

import torch
from oracles.registered import assert_near, randomize

from lcg.attention.layer import MultiHeadAttention
from lcg.config import load_config
from lcg.positional.base import Sizes
from lcg.positional.nope import NoPE

SIZES = Sizes(heads=3, kv_heads=3, head_dim=4, d_model=10)


def layer_of(preset, backend="auto", silent=False, sizes=SIZES):
    """A layer with random parameters; silent: no head has weight at the first query."""
    attention = load_config([f"attention={preset}", f"attention.backend={backend}"]).attention
    torch.manual_seed(1)
    layer = MultiHeadAttention(attention, NoPE(), sizes)
    randomize(layer, seed=2)
    if silent:  # q_i·k_i = -|q_i|²
        with torch.no_grad():
            layer.key.weight.copy_(-layer.query.weight)
    return layer


def rela(x, state, sizes, gated):
    """Weights [h t t] and output [t w] of one sequence x [t w]."""
    t, d = len(x), sizes.head_dim
    q, k, v = (
        (x @ state[f"{name}.weight"].T).view(t, sizes.heads, d).transpose(0, 1)
        for name in ("query", "key", "value")
    )
    mask = torch.tril(torch.ones(t, t, dtype=x.dtype))
    weights = torch.relu((q * d**-0.5) @ k.transpose(1, 2) * mask)
    o = (weights @ v).transpose(0, 1).reshape(t, -1)
    normed = state["output_norm_state.scale"] * o / (o.square().mean(-1, True) + 1e-6).sqrt()
    if gated:
        normed = normed / (1 + torch.exp(-state["output_norm_state.gate"] * o))
    return weights, normed @ state["output.weight"].T


def compare(layer, length, gated):
    """Hold a layer to the formula, weights, output and gradients; returns the expected weights."""
    torch.manual_seed(length)
    device = layer.output.weight.device
    x = torch.randn(1, length, layer.sizes.d_model).to(device).requires_grad_()
    cotangent, positions = torch.randn(1, length, layer.sizes.d_model), torch.arange(length)
    positions = positions.to(device)
    out = layer(x, positions)
    leaves = {"x": x, **dict(layer.named_parameters())}
    got = torch.autograd.grad(out, list(leaves.values()), cotangent.to(device), allow_unused=True)

    exact = {name: leaf.detach().cpu().double().requires_grad_() for name, leaf in leaves.items()}
    weights, expected = rela(exact["x"][0], exact, layer.sizes, gated)
    want = torch.autograd.grad(expected, list(exact.values()), cotangent[0].double())
    assert_near(layer.weights(x, positions)[0].cpu(), weights, 1e-5, "weights")
    assert_near(out[0].cpu(), expected, 2e-5, "output")
    scale = max(1e-3, 0.05 * want[0].abs().max().item())
    for name, actual, wanted in zip(leaves, got, want, strict=True):
        actual = torch.zeros_like(wanted) if actual is None else actual.cpu()
        assert_near(actual, wanted, 2e-4, f"gradient of {name}", at_least=scale)
    return weights
