"""A key exactly at the edge of the support: one key two score units below the maximum, α = 1.5."""

import pytest
import torch

from lcg.entmax import entmax


@pytest.mark.parametrize(("alpha", "gap"), [(1.5, 2.0), (2.0, 1.0)])
def test_second_key_exactly_at_the_edge(alpha, gap):
    top = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 4
    scores = torch.stack([top, top - gap, top - 3.7], dim=-1)
    scores = scores[(scores[:, 0] - scores[:, 1]) == gap]  # those where the gap is exact
    assert len(scores) > 1000
    weights = entmax(scores, alpha)
    assert torch.equal(weights[:, 0], torch.ones(len(scores)))
    assert torch.equal(weights[:, 1:], torch.zeros(len(scores), 2))
