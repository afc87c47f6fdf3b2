"""Large scores in the kernels: only differences count, as far as float32 can tell them."""

import pytest
import torch
from oracles.kernels import DEVICE, inputs
from oracles.registered import label

from lcg.attention.backends.triton import operators, tiles
from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.softmax import Softmax

ALPHAS = (1.05, 1.3, 1.5, 1.7, 2.0, 3.0)
NORMALIZERS = [Softmax(), *map(Entmax, ALPHAS), LearnedEntmax(init="constant", alpha=1.6)]


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=label)
def test_large_scores(normalizer, blocks, monkeypatch):
    """Half of the keys score ±size, the others half as much; √d is 4, so products are exact."""
    if blocks:
        monkeypatch.setattr(tiles, "ONE_TILE", 0)
        monkeypatch.setattr(tiles, "BLOCKS", (16, 16))
        monkeypatch.setattr(operators, "WINDOWED", 0)
    count = 37
    v = inputs(count, count, heads=1, groups=1)[2].detach()
    learned = {"a": torch.tensor([0.4], device=DEVICE)}
    places = torch.arange(count, device=DEVICE)
    for size in (2.0**8, 2.0**20, 2.0**54, 2.0**84):
        for sign in (1.0, -1.0):
            q, k = torch.zeros(2, 1, 1, count, 16, device=DEVICE)
            q[..., 0], k[..., 0], k[..., 1::2, 0] = 4 * size**0.5, size**0.5, size**0.5 / 2
            leaves = [q.requires_grad_(), k.mul(sign).requires_grad_()]
            out = attend(*leaves, v, normalizer, Bias(places, places), learned, "triton")
            best = torch.ones(count, count, device=DEVICE).tril() * (places % 2 == (sign < 0))
            best[0, 0] = 1  # sees nothing else
            expected = best / best.sum(dim=-1, keepdim=True) @ v[0, 0]
            assert (out[0, 0] - expected).abs().max() <= 1e-5, (size, sign)
            assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), leaves))
