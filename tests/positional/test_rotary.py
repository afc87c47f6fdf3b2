"""RoPE against complex numbers, and what follows from its being a rotation."""

import cmath

import pytest
import torch

from lcg.positional.base import Sizes
from lcg.positional.rotary import RoPE


def vectors(width=8, tokens=5):
    torch.manual_seed(0)
    return torch.randn(2, 3, tokens, width, dtype=torch.float64)


@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.25])
def test_a_pair_of_dimensions_is_a_complex_number_that_turns(base, fraction):
    """Dimension m with m + r/2 is turned by position·base^(-2m/r); the rest stays."""
    x, positions = vectors(), torch.tensor([0, 1, 7, 100, 65_536])
    y = RoPE(base, fraction).rotate_queries(x, positions, {})
    r = int(8 * fraction)
    for t, position in enumerate(positions.tolist()):
        for m in range(r // 2):
            turn = cmath.exp(1j * position * base ** (-2 * m / r))
            before = torch.complex(x[:, :, t, m], x[:, :, t, m + r // 2])
            after = torch.complex(y[:, :, t, m], y[:, :, t, m + r // 2])
            assert (after - before * turn).abs().max() < 1e-9
    assert torch.equal(y[..., r:], x[..., r:])


def test_first_and_slowest_frequency_by_hand():
    x = torch.zeros(1, 1, 1, 4)
    x[..., 0], x[..., 1] = 1.0, 1.0
    y = RoPE(base=100.0).rotate_keys(x, torch.tensor([2]), {})[0, 0, 0]
    # 2 rad for dimensions 0 and 2, 2/10 rad for 1 and 3
    assert y.tolist() == pytest.approx([-0.4161468, 0.9800666, 0.9092974, 0.1986693], abs=1e-6)


def test_queries_and_keys_turn_alike_and_keep_their_length():
    x, positions = vectors(), torch.arange(5) * 1000
    rope = RoPE()
    y = rope.rotate_queries(x, positions, {})
    assert torch.equal(y, rope.rotate_keys(x, positions, {}))
    assert (y.norm(dim=-1) - x.norm(dim=-1)).abs().max() < 1e-12


def test_the_product_depends_on_the_distance_alone():
    q, k = vectors()[0], vectors()[1]
    rope, positions = RoPE(), torch.tensor([0, 3, 4, 9, 20])

    def product(shift):
        turned = (
            rope.rotate_queries(q, positions + shift, {}),
            rope.rotate_keys(k, positions + shift, {}),
        )
        return turned[0] @ turned[1].mT

    assert (product(0) - product(12_345)).abs().max() < 1e-9
    assert (product(0) - q @ k.mT).abs().max() > 0.1


def test_angles_are_right_in_every_type_far_beyond_training():
    """In float32 an angle of 65,536 rad is off by 0.004; in bfloat16 it would be noise."""
    x, positions = vectors(), torch.tensor([65_535, 131_071, 8_191, 1, 0])
    exact = RoPE().rotate_queries(x, positions, {})
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.03)):
        y = RoPE().rotate_queries(x.to(dtype), positions, {})
        assert y.dtype == dtype
        assert (y.double() - exact).abs().max() < tolerance * x.abs().max()


@pytest.mark.parametrize(
    ("fraction", "head_dim"), [(1.0, 3), (0.5, 6), (0.5, 5), (0.3, 8), (0.01, 8), (1.0, 1)]
)
def test_an_odd_number_of_rotated_dimensions_is_refused(fraction, head_dim):
    with pytest.raises(ValueError, match=r"^rope: .*head_dim") as error:
        RoPE(fraction=fraction).check(Sizes(2, 2, head_dim, 8))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fraction", "head_dim", "rotated"),
    [(1.0, 2, 2), (0.25, 8, 2), (0.2, 10, 2), (0.07, 200, 14), (0.29, 200, 58)],
)
def test_a_fraction_that_is_not_a_binary_number_is_fine(fraction, head_dim, rotated):
    rope = RoPE(fraction=fraction)
    rope.check(Sizes(2, 2, head_dim, 8))
    x = torch.randn(1, 1, 1, head_dim)
    changed = rope.rotate_queries(x, torch.tensor([1]), {}) != x
    assert changed[0, 0, 0].nonzero().max() == rotated - 1


@pytest.mark.parametrize(
    "options", [{"base": 1.0}, {"base": -2.0}, {"fraction": 0.0}, {"fraction": 1.1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"^rope: {next(iter(options))}"):
        RoPE(**options)
