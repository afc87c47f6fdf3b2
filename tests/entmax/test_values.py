"""Weights of lcg.entmax against the definition (oracles/entmax.py) and its properties."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.entmax import entmax_rows
from torch import Tensor

from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.entmax import (
    edge_below,
    entmax,
    entmax_above,
    solver,
    support_edge,
    threshold,
    weights_from_threshold,
)

ALPHAS = [1.0, 1.01, 1.05, 1.1, 1.3, 1.5, 1.7, 2.0, 2.5, 4.0, 8.0, 32.0]
LENGTHS = [1, 2, 3, 7, 63, 111, 1000]
SCALES = [0.01, 0.1, 1.0, 10.0, 100.0, 1e4]
INF = math.inf


def exact(scores: Tensor, alpha: float) -> Tensor:
    return torch.from_numpy(entmax_rows(scores.double().numpy(), alpha))


def random_scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adversarial_rows() -> dict[str, Tensor]:
    """Rows that are hard for a Newton or Michelot iteration, or for float32 thresholds."""
    n = 2000
    ladder = torch.arange(n, dtype=torch.float32)
    rows = {
        "geometric gaps": -(2.0 ** (-ladder.clamp(max=60))).flip(0),
        "geometric scores": -(1.05**ladder).clamp(max=1e6),
        "halving": 2.0 ** -ladder.clamp(max=100),
        "harmonic": 1 / (1 + ladder),
        "square root": -ladder.sqrt() * 1e-2,
        "dense line": ladder / n,
        "many scales": random_scores(n) * 10.0 ** -(ladder % 9),
        "ties": (ladder % 3).clone(),
        "huge offset": random_scores(n) + 1e4,
    }
    for gap in (0.3, 0.9, 0.999999, 1.0, 1.5, 1.9):
        one_high = torch.full((n,), 0.37 - gap)
        one_high[0] = 0.37
        rows[f"one key {gap} above ties"] = one_high
        rows[f"one key {gap} above near ties"] = one_high + 1e-4 * random_scores(n)
    return rows


@pytest.mark.parametrize("alpha", ALPHAS)
def test_weights_match_the_definition(alpha: float) -> None:
    for length in LENGTHS:
        for scale in SCALES:
            z = random_scores(4, length, seed=length) * scale
            expected = exact(z, alpha)
            for given_alpha in (alpha, torch.full((4, 1), alpha, dtype=torch.float64)):
                p = entmax(z, given_alpha)
                assert p.dtype == z.dtype and p.shape == z.shape
                assert (p - expected).abs().max() <= 1e-6, (length, scale)
                assert (p.double().sum(-1) - 1).abs().max() <= 1e-6, (length, scale)
                if alpha >= 1.3:
                    assert torch.equal(p > 0, expected > 0), (length, scale)
            p = entmax(z.double(), alpha)
            assert (p - expected).abs().max() <= 1e-11, (length, scale)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_adversarial_rows(alpha: float) -> None:
    for name, row in adversarial_rows().items():
        expected = exact(row[None], alpha)[0]
        several = torch.tensor([[alpha], [1.25]], dtype=torch.float64)
        for p in (entmax(row, alpha), entmax(torch.stack([row, row]), several)[0]):
            assert (p - expected).abs().max() <= 1e-6, name
            assert abs(p.double().sum() - 1) <= 1e-6, name


@pytest.mark.parametrize("alpha", [1.01, 1.3, 1.5, 2.0, 4.0, 32.0])
def test_a_dominant_key_over_many_tied_ones(alpha: float) -> None:
    reach = (1 - 65536 ** (1 - alpha)) / (alpha - 1)
    for share in (0.1, 0.9, 0.999999, 1.1):
        z = torch.full((1, 65537), -share * reach)
        z[0, 7] = 0
        p = entmax(z, alpha)
        assert (p - exact(z, alpha)).abs().max() <= 1e-6
        assert abs(p.double().sum() - 1) <= 1e-6


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_branch_that_never_reads_values_back(alpha: float, monkeypatch) -> None:
    """Accelerators must not be read in the middle of a solve: that branch, run on the CPU."""
    z = torch.cat([random_scores(40, 200), random_scores(40, 200) * 50])
    z[3] = -INF
    expected = exact(z, alpha)
    monkeypatch.setattr(solver, "host_reads_free", lambda tensor: False)
    for given_alpha in (alpha, torch.full((80, 1), alpha, dtype=torch.float64)):
        assert (entmax(z, given_alpha) - expected).abs().max() <= 1e-6
    for name, row in adversarial_rows().items():
        assert (entmax(row, alpha) - exact(row[None], alpha)[0]).abs().max() <= 1e-6, name


@pytest.mark.parametrize("alpha", ALPHAS)
def test_iterations_are_bounded(alpha: float, monkeypatch) -> None:
    calls = 0
    original = solver.keep_going

    def counted(*arguments) -> bool:
        nonlocal calls
        calls += 1
        return original(*arguments)

    monkeypatch.setattr(solver, "keep_going", counted)
    worst = 0
    for row in adversarial_rows().values():
        calls = 0
        entmax(row, alpha)
        worst = max(worst, calls)
    assert worst <= 40
    calls = 0
    entmax(random_scores(64, 512), alpha)
    assert calls <= 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    st.sampled_from(ALPHAS),
    st.randoms(use_true_random=False),
)
def test_properties(values: list[float], alpha: float, random) -> None:
    z = torch.tensor(values)
    p = entmax(z, alpha)
    assert p.isfinite().all() and (p >= 0).all()
    assert abs(p.double().sum() - 1) <= 1e-6
    order = torch.tensor(random.sample(range(len(values)), len(values)))
    assert (entmax(z[order], alpha) - p[order]).abs().max() <= 1e-6
    ranked = torch.sort(z).indices
    assert (p[ranked].diff() >= 0).all()
    for i in range(len(values)):
        assert (p[z == z[i]] == p[i]).all()
    # A shift by a power of two of a coarse grid is exact, so the weights must not move.
    coarse = (z * 8).round() / 8
    assert (entmax(coarse + 64, alpha) - entmax(coarse, alpha)).abs().max() <= 1e-6


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_keys_off_the_support_change_no_bit(alpha: float) -> None:
    """Lemma 1: appending, deleting or masking keys below the threshold changes nothing."""
    for n in (5, 64, 513, 4096):
        z = random_scores(200, n, seed=n) * 2
        p = entmax(z, alpha)
        masked = z.masked_fill(p == 0, -INF)
        assert torch.equal(entmax(masked, alpha), p)
        assert torch.equal(threshold(masked, alpha), threshold(z, alpha))
        appended = torch.cat([z, torch.full((200, 37), z.min() - 1)], dim=-1)
        wider = entmax(appended, alpha)
        assert torch.equal(wider, torch.cat([p, torch.zeros(200, 37)], dim=-1))


@pytest.mark.parametrize("alpha", [1.1, 1.5, 1.7, 2.0, 3.0, 4.0])
def test_two_level_scores(alpha: float) -> None:
    """Lemma 2: k keys at a gap above n - k others hold all mass iff gap >= k^(1-a)/(a-1)."""
    for k, n in ((1, 50), (5, 1000), (16, 300)):
        gap = k ** (1 - alpha) / (alpha - 1)
        z = torch.zeros(n, dtype=torch.float64)
        z[:k] = gap * 1.0001
        p = entmax(z, alpha)
        assert (p[:k] - 1 / k).abs().max() < 1e-12 and (p[k:] == 0).all()
        z[:k] = gap * 0.98
        assert (entmax(z, alpha) > 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masks(alpha: float) -> None:
    z = random_scores(6, 9)
    z[0] = -INF
    z[1, 1:] = -INF
    z[2, ::2] = -INF
    z.requires_grad_()
    for given_alpha in (alpha, torch.full((6, 1), alpha), torch.full((), alpha)):
        a = given_alpha
        if isinstance(a, Tensor):
            a.requires_grad_()
        z.grad = None
        p = entmax(z, a)
        assert (p[0] == 0).all() and p[1, 0] == 1 and (p[2, ::2] == 0).all()
        kept = entmax(z[2:3, 1::2], alpha)
        assert (p[2, 1::2] - kept).abs().max() <= 1e-6
        (p * random_scores(6, 9, seed=1)).sum().backward()
        assert z.grad is not None and z.grad.isfinite().all()
        assert (z.grad[0] == 0).all() and (z.grad[torch.isinf(z)] == 0).all()
        if isinstance(a, Tensor):
            assert a.grad is not None and a.grad.isfinite().all()
    statistic = threshold(z, alpha)
    assert statistic.shape == (6, 2) and not statistic.isnan().any()
    assert (weights_from_threshold(torch.randn(1, 9), statistic[:1], alpha) == 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_weights_from_threshold_are_entmax(alpha: float, dtype: torch.dtype) -> None:
    z = (random_scores(3, 50, 40) * 3).to(dtype)
    z[0, 0] = -INF
    for a in (alpha, torch.full((3, 1, 1), alpha)):
        statistic = threshold(z, a)
        assert statistic.dtype == torch.float64 and statistic.shape == (3, 50, 2)
        p = entmax(z, a)
        assert torch.equal(weights_from_threshold(z, statistic, a), p)
        part = weights_from_threshold(z[..., 5:12], statistic, a)
        assert torch.equal(part, p[..., 5:12])
    across = threshold(z, alpha, dim=1)
    assert across.shape == (3, 2, 40)
    assert torch.equal(weights_from_threshold(z, across, alpha, dim=1), entmax(z, alpha, dim=1))


def test_the_statistic_gives_tau() -> None:
    z = random_scores(20, 30, seed=4).double()
    for alpha in (1.3, 1.5, 2.0, 3.0):
        anchor, log_weight = threshold(z, alpha).split(1, dim=-1)
        tau = (alpha - 1) * anchor - ((alpha - 1) * log_weight).exp()
        p = ((alpha - 1) * z - tau).clamp(min=0) ** (1 / (alpha - 1))
        assert (p - entmax(z, alpha)).abs().max() < 1e-9
    anchor, log_weight = threshold(z, 1.0).split(1, dim=-1)
    assert (anchor - log_weight - z.logsumexp(-1, keepdim=True)).abs().max() < 1e-12


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(alpha: float, dtype: torch.dtype) -> None:
    z = (random_scores(33, 111) * 2).to(dtype).requires_grad_()
    wide = z.detach().float().requires_grad_()
    p, q = entmax(z, alpha), entmax(wide, alpha)
    assert p.dtype == dtype and torch.equal(p, q.to(dtype))
    grad = random_scores(33, 111, seed=1).to(dtype)
    p.backward(grad)
    q.backward(grad.float())
    assert z.grad.dtype == dtype and torch.equal(z.grad, wide.grad.to(dtype))


def test_one_alpha_per_head() -> None:
    z = random_scores(2, 5, 6, 17) * 2
    alpha = torch.tensor([1.0, 1.01, 1.5, 2.0, 4.0]).view(5, 1, 1)
    p = entmax(z, alpha)
    q = entmax(z, alpha_minus_one=alpha.double() - 1)
    for head in range(5):
        expected = exact(z[:, head], alpha[head].item())
        assert (p[:, head] - expected).abs().max() <= 1e-6
        assert (q[:, head] - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0, 3.0])
def test_dimension_layout_and_chunks(alpha: float, monkeypatch) -> None:
    z = random_scores(3, 7, 5)
    for dim in (0, 1, -2):
        expected = entmax(z.movedim(dim, -1), alpha).movedim(-1, dim)
        assert torch.equal(entmax(z, alpha, dim), expected)
    per_column = torch.full((1, 5), alpha)
    assert (entmax(z, per_column, 1) - entmax(z, alpha, 1)).abs().max() <= 1e-6
    strided = random_scores(5, 14, 3).permute(2, 1, 0)[:, ::2]
    assert not strided.is_contiguous()
    assert torch.equal(entmax(strided, alpha), entmax(strided.contiguous(), alpha))

    z = random_scores(50, 30).requires_grad_()
    whole = entmax(z, alpha)
    (whole_grad,) = torch.autograd.grad(whole[:, 0].sum(), z)
    monkeypatch.setattr("lcg.entmax.function._CHUNK_CPU", 7 * 30)
    pieces = entmax(z, alpha)
    (pieces_grad,) = torch.autograd.grad(pieces[:, 0].sum(), z)
    assert (pieces - whole).abs().max() <= 1e-6 and (pieces_grad - whole_grad).abs().max() <= 1e-5
    assert (threshold(z, alpha) - threshold(z[:25], alpha).repeat(2, 1))[:25].abs().max() <= 1e-5


def test_empty_and_scalar() -> None:
    assert entmax(torch.zeros(0, 4)).shape == (0, 4)
    assert entmax(torch.zeros(4, 0)).shape == (4, 0)
    assert threshold(torch.zeros(4, 0)).tolist() == [[INF, -INF]] * 4
    assert entmax(torch.zeros(2, 0, 3), 2.0, dim=1).shape == (2, 0, 3)
    assert entmax(torch.tensor(3.0)) == 1


def test_nan_stays_in_its_row() -> None:
    for alpha in ALPHAS:
        z = random_scores(3, 5)
        z[1, 2] = math.nan
        assert entmax(z, alpha).isnan().any(-1).tolist() == [False, True, False]


def test_small_alpha_minus_one_approaches_softmax() -> None:
    z = random_scores(20, 100, seed=3) * 3
    soft = torch.softmax(z.double(), -1)
    for epsilon, tolerance in ((0.0, 3e-7), (1e-14, 3e-7), (1e-9, 3e-7), (1e-5, 1e-4)):
        p = entmax(z, alpha_minus_one=torch.tensor(epsilon, dtype=torch.float64))
        assert (p - soft).abs().max() <= tolerance
        assert (p.double().sum(-1) - 1).abs().max() <= 1e-6
    assert (p - exact(z, 1 + epsilon)).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 0.5}, ValueError, r"alpha must be 1 or lie in \[1.01, 32\]; got 0.5"),
        ({"alpha": 1.005}, ValueError, r"got 1.005"),
        ({"alpha": 33}, ValueError, r"got 33"),
        ({"alpha": math.nan}, ValueError, r"got nan"),
        ({"alpha": torch.tensor([[1.5], [40.0]])}, ValueError, r"got 40"),
        ({"alpha": torch.tensor([[1.5], [math.nan]])}, ValueError, r"got nan"),
        ({"alpha": torch.tensor([1.5, 2.0, 1.2])}, ValueError, r"does not broadcast over the rows"),
        ({"alpha_minus_one": -0.1}, ValueError, r"must lie in \[0, 31\]; got -0.1"),
        ({"alpha": 2.0, "alpha_minus_one": 0.5}, ValueError, r"not both"),
        ({"alpha": torch.tensor([[2], [2]])}, TypeError, r"floating-point tensor"),
        ({"alpha": torch.tensor(True)}, TypeError, r"number or a tensor; got Tensor"),
        ({"alpha": np.bool_(True)}, TypeError, r"number or a tensor; got bool"),
        ({"alpha": np.ones(2)}, TypeError, r"number or a tensor; got ndarray"),
        ({"alpha": np.float64(2), "alpha_minus_one": 0.5}, ValueError, r"not both"),
        ({"alpha": "1.5"}, TypeError, r"number or a tensor; got str"),
        ({"dim": 2}, IndexError, r"dim 2 is out of range"),
    ],
)
def test_errors_are_one_line(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        entmax(torch.zeros(2, 3), **arguments)
    assert "\n" not in str(caught.value)


NUMBERS = [
    *(np.float16(2), np.float32(1.5), np.float64(1.25), np.int64(2), np.array(3.0), np.array(2)),
    *(torch.tensor(1.5), torch.tensor(2), torch.tensor(1.25, dtype=torch.float64), Fraction(3, 2)),
]


@pytest.mark.parametrize("alpha", NUMBERS, ids=repr)
def test_a_number_is_a_number(alpha) -> None:
    """In every public function, whichever library it comes from."""
    z, value = random_scores(4, 9), float(alpha)
    p, statistic = entmax(z, value), threshold(z, value)
    assert torch.equal(entmax(z, alpha), p)
    assert torch.equal(entmax(z, alpha_minus_one=alpha), entmax(z, alpha_minus_one=value))
    assert torch.equal(threshold(z, alpha), statistic)
    assert torch.equal(support_edge(z, alpha), support_edge(z, value))
    assert torch.equal(weights_from_threshold(z, statistic, alpha), p)
    if value in (1.5, 2.0):
        assert torch.equal(edge_below(z, alpha), edge_below(z, value))
        above = entmax_above(z.clone(), None, alpha)
        assert torch.equal(above, entmax_above(z.clone(), None, value))
    normalizer = Entmax(alpha)
    assert normalizer == Entmax(value) and type(normalizer.alpha) is float
    q, k, v = random_scores(3, 1, 2, 5, 4)
    bias = Bias(torch.arange(5), torch.arange(5))
    assert torch.equal(attend(q, k, v, normalizer, bias), attend(q, k, v, Entmax(value), bias))
    if value < 2:
        assert LearnedEntmax(alpha=alpha).alpha == value
    with pytest.raises(TypeError, match="entmax: alpha must be a number, got str"):
        Entmax("1.5")


def test_integer_scores_are_refused() -> None:
    with pytest.raises(TypeError, match="floating-point scores"):
        entmax(torch.zeros(3, dtype=torch.long))


def test_the_oracle_on_cases_known_by_hand() -> None:
    assert np.allclose(entmax_rows(np.array([2.0, 1.0, -1.0]), 2.0), [1, 0, 0])
    assert np.allclose(entmax_rows(np.array([0.5, 0.0]), 2.0), [0.75, 0.25])
    assert np.allclose(entmax_rows(np.zeros(4), 1.5), [0.25] * 4)
    # alpha = 1.5, two scores at distance 1: r - r' = 1/2 and r^2 + r'^2 = 1
    r = (1 / 2 + math.sqrt(7 / 4)) / 2
    assert np.allclose(entmax_rows(np.array([1.0, 0.0]), 1.5), [r * r, (r - 0.5) ** 2])


def test_results_do_not_share_scratch_memory():
    """Calls of one size share it, whatever mode they run in, and what they return is their own."""
    scores = torch.randn(2, 40, 33, generator=torch.Generator().manual_seed(5))
    for alpha in (1.5, 1.3):
        with torch.inference_mode():
            inside = entmax(scores[0], alpha)
        first = entmax(scores[0], alpha)
        kept = first.clone()
        leaf = scores[1].clone().requires_grad_()
        entmax(leaf, alpha).square().sum().backward()
        assert torch.equal(first, kept) and torch.equal(inside, kept)
        assert leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("below", [6e-7, 1e-6, 1e-3])
def test_a_key_just_below_the_edge_changes_no_bit(alpha: float, below: float) -> None:
    """The first two lie where a first solve still takes them for supported."""
    torch.manual_seed(0)
    z = torch.randn(4096, 60)
    anchor, log_weight = threshold(z, alpha).split(1, dim=-1)
    edge = anchor - ((alpha - 1) * log_weight).exp() / (alpha - 1)
    z = torch.cat([z, (edge - below).float()], dim=1)
    weights = entmax(z, alpha)
    assert (weights[:, -1] == 0).all()
    assert torch.equal(entmax(z[:, :-1], alpha), weights[:, :-1])
