import math

import pytest
import torch

from lcg.positional.base import BiasContext, Sizes
from lcg.registry import find


def formula(i, j, start):
    return -start * math.log(1 + start * abs(i - j))


@pytest.mark.parametrize("start", [0.5, 1.0])
@pytest.mark.parametrize("queries", [range(7), [6], [3, 1]])
def test_bias(start, queries):
    encoding = find("position", "./kerple.py:Kerple")(start=start)
    learned = encoding.learned(Sizes(heads=3, kv_heads=3, head_dim=4, d_model=12))
    q_positions, k_positions = torch.tensor(list(queries)), torch.arange(7)
    q, k = torch.randn(1, 3, len(queries), 4), torch.randn(1, 3, 7, 4)
    x = torch.randn(1, len(queries), 12)
    bias = encoding.bias(BiasContext(q, k, x, q_positions, k_positions), learned)
    for head in bias.tolist():
        for i, row in zip(queries, head, strict=True):
            assert row == pytest.approx([formula(i, j, start) for j in range(7)])
