"""The triton backend held against the formula, one row after another in float64."""

import math

import torch
from oracles import attention as oracle
from oracles.registered import assert_near

from lcg.attention.functional import Bias, attend
from lcg.positional.base import Sizes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORWARD, GRADIENT = 1e-5, 1e-4


def inputs(queries=19, keys=19, d=16, heads=4, groups=2, batch=1, spread=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads, queries, d, generator=generator) * spread
    k, v = torch.randn(2, batch, groups, keys, d, generator=generator)
    return [tensor.to(DEVICE).requires_grad_() for tensor in (q, k, v)]


def make_bias(queries, keys, **fields):
    positions = torch.arange(keys, device=DEVICE) * 2 + 1
    return Bias(positions[keys - queries :], positions, **fields)


def formula(q, k, v, normalizer, bias, learned):
    """One row after another, in float64."""
    rows = getattr(oracle, normalizer.name)
    options = vars(normalizer)
    b, h, queries, d = q.shape
    out = []
    for sample in range(b):
        for head in range(h):
            group = head // (h // k.shape[1])
            scores = q[sample, head] @ k[sample, group].T / math.sqrt(d)
            distance = bias.q_positions[:, None] - bias.k_positions
            if bias.slopes is not None:
                scores = scores - bias.slopes[head].double() * distance.abs()
            seen = distance >= 0 if bias.causal else torch.ones_like(distance, dtype=torch.bool)
            if bias.key_mask is not None:
                seen = seen & bias.key_mask[sample]
            for i in range(queries):
                if not seen[i].any():
                    out.append(0 * q[sample, head, i])
                    continue
                p = rows(scores[i, seen[i]], options, learned, head)
                out.append(p @ v[sample, group, seen[i]])
    return torch.stack(out).view(b, h, queries, d)


def learned_by(normalizer):
    """Return the learned tensors, as at the start."""
    return {name: x.to(DEVICE) for name, x in normalizer.learned(Sizes(4, 2, 16, 64)).items()}


def compare(normalizer, tensors, bias, forward=FORWARD, gradient=GRADIENT):
    learned = learned_by(normalizer)
    leaves = [*tensors, *(tensor.requires_grad_() for tensor in learned.values())]
    out = attend(*tensors, normalizer, bias, learned, "triton")
    assert out.dtype == tensors[2].dtype
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    actual = torch.autograd.grad(out, leaves, cotangent)

    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    there = bias._replace(
        q_positions=bias.q_positions.cpu(),
        k_positions=bias.k_positions.cpu(),
        slopes=None if bias.slopes is None else bias.slopes.cpu(),
        key_mask=None if bias.key_mask is None else bias.key_mask.cpu(),
    )
    expected = formula(*exact[:3], normalizer, there, dict(zip(learned, exact[3:], strict=True)))
    wanted = torch.autograd.grad(expected, exact, cotangent.cpu().double(), allow_unused=True)
    assert_near(out.cpu(), expected, forward, "output")
    for name, got, want in zip(["q", "k", "v", *learned], actual, wanted, strict=True):
        want = torch.zeros_like(got.cpu()) if want is None else want
        assert_near(got.cpu(), want, gradient, f"gradient of {name}", at_least=0.05)
    return out
