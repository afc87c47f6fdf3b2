"""ReLA and ReLA-g on the triton backend are their authors' formula, with rows of zeros."""

import pytest
import torch
from oracles.rela import compare, layer_of

from lcg.attention.backends.triton import operators, tiles
from lcg.positional.base import Sizes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WIDE_ENOUGH = Sizes(heads=2, kv_heads=2, head_dim=16, d_model=12)


@pytest.mark.parametrize("regime", ["one tile", "blocks"])
@pytest.mark.parametrize("preset", ["rela", "rela_g"])
def test_rela_is_the_formula(preset, regime, monkeypatch):
    if regime == "blocks":
        monkeypatch.setattr(tiles, "ONE_TILE", 0)
        monkeypatch.setattr(tiles, "BLOCKS", (16, 16))
        monkeypatch.setattr(operators, "WINDOWED", 0)
    layer = layer_of(preset, "triton", silent=True, sizes=WIDE_ENOUGH).to(DEVICE)
    weights = compare(layer, 19, gated=preset == "rela_g")
    assert (weights.sum(-1)[:, 0] == 0).all()
