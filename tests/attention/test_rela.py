"""ReLA and ReLA-g are their authors' formula, with rows of zeros."""

import math

import pytest
from oracles.rela import SIZES, compare, layer_of


@pytest.mark.parametrize("silent", [False, True], ids=["", "silent first query"])
@pytest.mark.parametrize("backend", ["reference", "blockwise"])
@pytest.mark.parametrize("preset", ["rela", "rela_g"])
@pytest.mark.parametrize("length", [1, 7, 70])
def test_rela_is_the_formula(preset, backend, silent, length):
    weights = compare(layer_of(preset, backend, silent), length, gated=preset == "rela_g")
    without = weights.sum(-1) == 0
    assert without[:, 0].all() or not silent
    assert without.any() or length < 70


def test_the_presets_differ_by_the_gate():
    plain, gated = layer_of("rela"), layer_of("rela_g")
    assert set(plain.output_norm_state) == {"scale"}
    assert set(gated.output_norm_state) == {"scale", "gate"}
    start, width = gated.attention.output_norm.learned(SIZES), SIZES.width
    assert (start["scale"] == 1).all() and start["gate"].abs().max() <= math.sqrt(3 / width)
