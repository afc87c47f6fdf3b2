"""On trained models the blockwise backend finds the same samples right as the reference."""

import pytest
from models.trained_models import LADDER, METHODS, agree, trained

from lcg.attention.backends import blockwise


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_same_samples_are_right(method, monkeypatch):
    model = trained(method)
    sizes = {
        "TILE": 2**14, "SMALL": 2**14, "KEPT": 2**14, "QUERIES": 16, "KEY_BLOCK": 8, "LONG": 20,
        "SEGMENT": 4,
    }  # fmt: skip
    for name, value in sizes.items():
        monkeypatch.setattr(blockwise, name, value)
    found = [agree(model, "blockwise", length, 32) for length in LADDER]
    assert min(clear for _, clear in found) > 0.98
    assert found[0][0] > 0.5, found  # where a random one has 1/8
