"""Multi-head attention, forward and gradient, is what the formulas of the papers say."""

from itertools import product

import pytest
import torch
from oracles import attention as oracle
from oracles.registered import (
    KINDS,
    SIZES,
    assert_near,
    choices,
    fitting,
    label,
    labels,
    pairwise,
    randomize,
    single,
    variants,
)
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.layer import MultiHeadAttention

# Scores are float32 whatever the input: a relative error of 1e-7 reaches the weights multiplied by
# the size of the scores, here up to 30, and the gradient of a scaling once more. Measured over all
# combinations: at most 3.3e-6 of the largest output and 1.7e-4 of the largest gradient.
FORWARD, GRADIENT = 1e-5, 5e-4

TABLES = {
    "normalizer": oracle.NORMALIZERS,
    "scaling": oracle.SCALINGS,
    "position": oracle.POSITIONS,
    "output_norm": oracle.OUTPUT_NORMS,
}
ODD_LENGTHS = (1, 2, 7, 13)
PAIRS = sampled(*map(variants, KINDS), SIZES, whole=pairwise, seed="attention")


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_choice_has_an_oracle(kind):
    missing = sorted(set(single(kind)) - set(TABLES[kind]))
    assert not missing, f"write the formula of {kind} {missing} in tests/oracles/attention.py"


def compare(normalizer, scaling, position, output_norm, sizes, length, backend="auto"):
    attention = Attention(normalizer, scaling, output_norm, backend)
    sizes = fitting(output_norm, sizes)
    torch.manual_seed(length)
    layer = MultiHeadAttention(attention, position, sizes)
    randomize(layer, seed=length)
    x = torch.randn(1, length, sizes.d_model, requires_grad=True)
    cotangent = torch.randn(1, length, sizes.d_model)

    actual = layer(x, position.positions(length))
    actual.backward(cotangent)

    exact = {
        name: tensor.detach().double().requires_grad_(tensor.requires_grad)
        for name, tensor in [("x", x), *layer.named_parameters()]
    }
    expected, _ = oracle.attention(exact["x"][0], exact, choices(attention, position, sizes))
    expected.backward(cotangent[0].double())

    assert_near(actual[0], expected, FORWARD, "output")
    got = {name: gradient(tensor) for name, tensor in [("x", x), *layer.named_parameters()]}
    want = {name: gradient(tensor) for name, tensor in exact.items()}
    scale = max(1e-3, 0.05 * want["x"].abs().max().item())
    constants = {name for name, tensor in layer.named_parameters() if not tensor.requires_grad}
    for name in want.keys() - constants:
        assert_near(got[name], want[name], GRADIENT, f"gradient of {name}", at_least=scale)


def gradient(tensor):
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


@pytest.mark.parametrize("row", PAIRS, ids=labels)
def test_forward_and_gradient_match_the_formulas(row):
    for length in ODD_LENGTHS:
        compare(*row, length)
    for backend in set(row[0].backends) - {"reference", "triton"}:  # triton needs a GPU
        compare(*row, 7, backend)


@pytest.mark.slow
@pytest.mark.parametrize("normalizer", variants("normalizer"), ids=label)
@pytest.mark.parametrize("position", variants("position"), ids=label)
def test_every_combination_matches_the_formulas(normalizer, position):
    for scaling, output_norm in product(variants("scaling"), variants("output_norm")):
        compare(normalizer, scaling, position, output_norm, SIZES[1], length=7)


@pytest.mark.parametrize("row", PAIRS, ids=labels)
def test_weights_match_the_formulas(row):
    """`weights`, for diagnostics, are those that the formulas give; 0 exactly on hidden keys."""
    *_, position, output_norm, sizes = row
    attention = Attention(row[0], row[1], output_norm)
    sizes = fitting(output_norm, sizes)
    torch.manual_seed(7)
    layer = MultiHeadAttention(attention, position, sizes)
    randomize(layer)
    x = torch.randn(1, 7, sizes.d_model)
    weights = layer.weights(x, position.positions(7))[0]
    state = {name: p.detach().double() for name, p in layer.named_parameters()}
    _, expected = oracle.attention(x[0].double(), state, choices(attention, position, sizes))
    for h, rows in enumerate(expected):
        for i, row_of_weights in enumerate(rows):
            seen = len(row_of_weights)
            assert_near(weights[h, i, :seen], row_of_weights, FORWARD, f"head {h} query {i}")
            assert (weights[h, i, seen:] == 0).all()
