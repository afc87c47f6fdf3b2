"""Keys exactly at the edge of the support, and just below it."""

import pytest
import torch

from lcg.attention.backends import blockwise
from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax
from lcg.entmax import entmax, support_edge


@pytest.mark.parametrize(("alpha", "gap"), [(1.5, 2.0), (2.0, 1.0)])
def test_second_key_exactly_at_the_edge(alpha, gap):
    top = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 4
    scores = torch.stack([top, top - gap, top - 3.7], dim=-1)
    scores = scores[(scores[:, 0] - scores[:, 1]) == gap]  # those where the gap is exact
    assert len(scores) > 1000
    weights = entmax(scores, alpha)
    assert torch.equal(weights[:, 0], torch.ones(len(scores)))
    assert torch.equal(weights[:, 1:], torch.zeros(len(scores), 2))


@pytest.mark.parametrize("alpha", [1.1, 1.5, 1.7, 2.0, 4.0, 8.0, 16.0, 32.0])
def test_no_key_below_the_edge_has_weight(alpha):
    """From alpha = 8 on one at the edge may have, and no backend leaves it out."""
    draw = torch.Generator().manual_seed(0)
    at_the_edge = 0.0
    for count in (2, 5, 600):
        for size in (0.05, 1.0, 10.0):
            z = torch.randn(400, count, generator=draw) * size
            for scores in (z, (z * 8).round() / 8):
                p, edge = entmax(scores, alpha), support_edge(scores, alpha)
                assert not (p * (scores.double() < edge)).any()
                at_the_edge = max(at_the_edge, (p * (scores.double() == edge)).max().item())
                tops = Entmax(alpha).support_edge(scores[:, : count // 2], {})
                assert not (p * (scores < tops)).any()
    assert (at_the_edge > 1e-3) == (alpha >= 8)


@pytest.mark.parametrize("alpha", [8.0, 32.0])
def test_backends_keep_keys_at_the_edge(alpha, monkeypatch):
    monkeypatch.setattr(blockwise, "SMALL", 0)
    draw = torch.Generator().manual_seed(0)
    q = torch.randint(-2, 3, (1, 2, 40, 4), generator=draw).float()
    k = torch.randint(-2, 3, (1, 2, 1200, 4), generator=draw) / 64
    v = torch.randn(1, 2, 1200, 4, generator=draw)
    places = torch.arange(1200)
    for slopes in (None, torch.tensor([2.0**-6, 0.0])):
        bias = Bias(places[-40:], places, slopes)
        with torch.no_grad():
            found = [
                attend(q, k, v, Entmax(alpha), bias, {}, b) for b in ("reference", "blockwise")
            ]
        assert (found[0] - found[1]).abs().max() <= 1e-5
