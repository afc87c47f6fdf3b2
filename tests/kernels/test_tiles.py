"""The tiles of long rows as they are on a device, and the lists of those that hold weight."""

import pytest
import torch
from oracles.kernels import DEVICE, compare, inputs, make_bias
from oracles.registered import label

from lcg.attention.backends.triton import operators, tiles
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax


@pytest.mark.parametrize("crowded", [0, 512])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("normalizer", [Entmax(1.5), Entmax(1.7), Softmax(), ReLU()], ids=label)
def test_tiles_as_they_are(normalizer, masked, crowded, monkeypatch):
    """Several blocks of queries and keys in the sizes of long rows; tiles seen whole, and not."""
    monkeypatch.setattr(tiles, "CROWDED", crowded)
    monkeypatch.setattr(tiles, "ONE_TILE", 0)
    monkeypatch.setattr(operators, "WINDOWED", 0)
    mask = torch.ones(1, 210, dtype=torch.bool, device=DEVICE)
    mask[:, 140:150] = False
    slopes = torch.tensor([0.0, 0.3], device=DEVICE)
    bias = make_bias(210, 210, slopes=slopes, key_mask=mask if masked else None)
    compare(normalizer, inputs(210, 210, d=32, heads=2, groups=1, spread=3.0), bias)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 16, 128), (1, 2, 33, 300), (1, 1, 1, 1)])
def test_lists_of_active_blocks(shape):
    active = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
    active[..., 0, :] = False
    for flags in (active.to(DEVICE, torch.uint8), active.to(DEVICE, torch.uint8).mT):
        count, order = operators._lists(flags)
        assert torch.equal(count.long(), flags.sum(-1, dtype=torch.long))
        for place in torch.cartesian_prod(*map(torch.arange, flags.shape[:3])).tolist():
            row = flags[tuple(place)]
            assert order[tuple(place)][: int(row.sum())].tolist() == row.nonzero()[:, 0].tolist()
