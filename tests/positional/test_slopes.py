"""Slopes of ALiBi and NAPE against numbers worked out by hand."""

import pytest
import torch

from lcg.positional.base import Sizes
from lcg.positional.groups import NAPE
from lcg.positional.slopes import ALiBi


def powers_of_two(*exponents):
    return [2.0**-e for e in exponents]


@pytest.mark.parametrize("variant", ["geometric", "interleaved"])
def test_alibi_with_eight_heads(variant):
    expected = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert ALiBi(variant).slopes(8).tolist() == expected


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [
        (1, [8]),
        (2, [4, 8]),
        (3, [8 / 3, 16 / 3, 8]),
        (12, [2 * h / 3 for h in range(1, 13)]),
        (16, [h / 2 for h in range(1, 17)]),
    ],
)
def test_alibi_is_geometric_for_every_number_of_heads(heads, exponents):
    assert ALiBi().slopes(heads).tolist() == pytest.approx(powers_of_two(*exponents))


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [
        (1, [8]),
        (3, [4, 8, 2]),  # two heads: 2^-4, 2^-8; four heads: 2^-2, …
        (5, [2, 4, 6, 8, 1]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
        (16, [h / 2 for h in range(1, 17)]),
    ],
)
def test_interleaved_alibi_takes_every_other_slope_of_twice_as_many_heads(heads, exponents):
    assert ALiBi("interleaved").slopes(heads).tolist() == pytest.approx(powers_of_two(*exponents))


def test_interleaved_alibi_as_the_original_code_computes_it():
    """That code starts a sequence for a power of two n at 2^(-2^-(log2(n) - 3)), also its ratio."""

    def original(n):
        if n & (n - 1) == 0:
            start = 2 ** (-(2 ** -((n.bit_length() - 1) - 3)))
            return [start * start**i for i in range(n)]
        closest = 2 ** (n.bit_length() - 1)
        return original(closest) + original(2 * closest)[0::2][: n - closest]

    for heads in range(1, 70):
        assert ALiBi("interleaved").slopes(heads).tolist() == pytest.approx(original(heads))


@pytest.mark.parametrize(
    ("heads", "linear", "exponential"),
    [
        (2, [1, 0], [1, 0]),
        (3, [1, 1 / 2, 0], [1, 1 / 2, 0]),
        (5, [1, 1 / 2, 1 / 3, 0, 0], [1, 1 / 2, 1 / 4, 0, 0]),
        (8, [1, 1 / 2, 1 / 3, 1 / 4, 0, 0, 0, 0], [1, 1 / 2, 1 / 4, 1 / 8, 0, 0, 0, 0]),
    ],
)
def test_nape_slopes_the_first_half_rounded_up(heads, linear, exponential):
    assert NAPE().slopes(heads).tolist() == pytest.approx(linear)
    assert NAPE("exponential").slopes(heads).tolist() == pytest.approx(exponential)
    assert [h not in NAPE().scaled_heads(heads) for h in range(heads)] == [s > 0 for s in linear]


def test_all_heads_of_other_encodings_are_scaled():
    assert list(ALiBi().scaled_heads(5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("encoding", [ALiBi(), ALiBi("interleaved"), NAPE(), NAPE("exponential")])
def test_slopes_are_float32_whatever_the_default_type(encoding):
    torch.set_default_dtype(torch.bfloat16)
    try:
        slopes = encoding.slopes(6)
    finally:
        torch.set_default_dtype(torch.float32)
    assert slopes.dtype == torch.float32
    assert torch.equal(slopes, encoding.slopes(6))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (Sizes(1, 1, 4, 4), ["nape", "heads"]),
        (Sizes(8, 1, 4, 32), ["nape", "kv_heads=1"]),
        (Sizes(6, 3, 4, 24), ["nape", "kv_heads=3"]),
    ],
)
def test_nape_refuses_heads_that_it_cannot_split(sizes, words):
    with pytest.raises(ValueError) as error:
        NAPE().check(sizes)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("kv_heads", [2, 4, 8])
def test_nape_splits_whole_groups_of_shared_key_heads(kv_heads):
    NAPE().check(Sizes(8, kv_heads, 4, 32))
