"""The normalizer seam, and what each normalizer declares about itself."""

import math
from functools import partial

import pytest
import torch
from oracles.attention import NORMALIZERS, formula
from oracles.registered import assert_near, label, variants

from lcg.attention.normalizers.base import Normalizer
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.softmax import AdaptiveTemperature, inverse_temperature
from lcg.attention.normalizers.stick_breaking import StickBreaking
from lcg.attention.normalizers.topk import TopK
from lcg.positional.base import Sizes

HEADS, KEYS = 3, 12
SIZES = Sizes(HEADS, HEADS, 4, 12)

normalizers = pytest.mark.parametrize("normalizer", variants("normalizer"), ids=label)


def rows(normalizer, spread=2.0, masked=True, seed=0):
    """Scores [2 h 5 k], some of them masked and some tied, key order, and learned tensors."""
    torch.manual_seed(seed)
    scores = spread * torch.randn(2, HEADS, 5, KEYS)
    scores[:, :, 4] = scores[:, :, 4].round()
    if masked:
        scores[1, :, :, 8:] = -torch.inf
        scores[1, :, 0, 1:] = -torch.inf  # a single key is left
    return scores, torch.arange(KEYS), normalizer.learned(SIZES)


@normalizers
def test_the_call_is_weights_of_row_statistics(normalizer):
    for spread in (0.1, 2.0, 50.0):
        scores, keys, learned = rows(normalizer, spread)
        statistics = normalizer.row_statistics(scores, keys, learned)
        composed = normalizer.weights(scores, statistics, keys, learned)
        assert_near(normalizer(scores, keys, learned), composed, 1e-5, f"spread {spread}")


@normalizers
def test_weights_are_those_of_the_formula(normalizer):
    scores, keys, learned = rows(normalizer)
    exact = {name: tensor.double() for name, tensor in learned.items()}
    oracle = formula(NORMALIZERS, "normalizer", normalizer.name)
    weights = normalizer(scores, keys, learned)
    for b, h, q in [(b, h, q) for b in range(2) for h in range(HEADS) for q in range(5)]:
        z = scores[b, h, q]
        seen = z > -torch.inf
        expected = oracle(z[seen].double(), vars(normalizer), exact, h)
        assert_near(weights[b, h, q][seen], expected, 1e-5)
        assert (weights[b, h, q][~seen] == 0).all()


@normalizers
def test_shift_invariance_is_as_declared(normalizer):
    scores, keys, learned = rows(normalizer)
    shifted = normalizer(scores + 3.0, keys, learned)
    weights = normalizer(scores, keys, learned)
    if normalizer.shift_invariant:
        assert_near(shifted, weights, 1e-5)
    else:
        assert (shifted - weights).abs().max() > 0.01, "declares less than is true"


@normalizers
def test_weights_treat_each_score_by_itself_where_declared(normalizer):
    """Given the statistics of the whole row, keys in any order and any part of them."""
    scores, keys, learned = rows(normalizer)
    statistics = normalizer.row_statistics(scores, keys, learned)
    whole = normalizer.weights(scores, statistics, keys, learned)
    differences = []
    for some in (torch.randperm(KEYS), torch.arange(3, 7), torch.tensor([KEYS - 1])):
        part = normalizer.weights(scores[..., some], statistics, keys[some], learned)
        differences.append((part - whole[..., some]).abs().max())
    worst = torch.stack(differences).max()  # NaN if one is
    assert worst < 1e-6 if normalizer.elementwise else worst > 0.01, worst


@normalizers
def test_statistics_are_one_number_per_row(normalizer):
    """Or a few: the last dimension is small and does not grow with the keys."""
    scores, keys, learned = rows(normalizer)
    for statistic in normalizer.row_statistics(scores, keys, learned):
        assert statistic.shape[:-1] == scores.shape[:-1] and statistic.shape[-1] <= 2


@normalizers
def test_large_scores_give_finite_weights_and_gradients(normalizer):
    for size in (1e2, 1e4):
        scores, keys, learned = rows(normalizer, size)
        scores.requires_grad_()
        weights = normalizer(scores, keys, learned)
        weights.square().sum().backward()
        assert weights.isfinite().all() and scores.grad.isfinite().all()
        assert (scores.grad[scores == -torch.inf] == 0).all()


# ---- top-k


def kept(scores, k):
    weights = TopK(k)(torch.tensor([scores]), torch.arange(len(scores)), {})[0]
    assert weights.sum().item() == pytest.approx(1)
    return weights.nonzero().squeeze(-1).tolist()


def test_topk_keeps_the_largest_and_of_ties_the_most_recent():
    assert kept([1.0, 4.0, 2.0, 3.0], 2) == [1, 3]
    assert kept([0.0] * 6, 2) == [4, 5]
    assert kept([5.0, 1.0, 1.0, 1.0, 0.0], 3) == [0, 2, 3]
    assert kept([1.0, 2.0, 2.0, 2.0, 1.0], 3) == [1, 2, 3]
    assert kept([1.0, 1.0, 3.0, 1.0, -math.inf], 2) == [2, 3]
    assert kept([1.0, 1.0, -math.inf, -math.inf], 3) == [0, 1]
    assert kept([3.0, 2.0, 1.0], 9) == [0, 1, 2]


def test_topk_keeps_the_most_recent_of_scores_that_rounding_sets_apart():
    """As backends and processors do with the score of the same symbol twice."""
    draw = torch.Generator().manual_seed(0)
    for size, offset in ((0.01, 0.0), (1.0, 0.0), (1.0, -100.0)):
        level = torch.randint(3, (200, 40), generator=draw) * size + offset
        noise = 1e-6 * torch.rand(level.shape, generator=draw) * max(1.0, -offset)
        scores = (level + noise).masked_fill(
            torch.rand(level.shape, generator=draw) < 0.1, -math.inf
        )
        clean = level.masked_fill(scores == -math.inf, -math.inf)
        for k in (1, 5, 30):
            for way in (TopK(k), partial(Normalizer.__call__, TopK(k))):
                kept_keys = way(scores, torch.arange(40), {}) > 0
                assert torch.equal(kept_keys, way(clean, torch.arange(40), {}) > 0)
                assert (kept_keys.sum(-1) == (scores > -math.inf).sum(-1).clamp(max=k)).all()
            edge = TopK(k).support_edge(scores, {})
            assert not (kept_keys & (scores < edge)).any()
    assert kept([1.0, 1.0 - 2e-5], 1) == [0] and kept([1.0, 1.0 - 8e-6], 1) == [1]


def test_topk_passes_gradient_to_kept_scores_only():
    scores = torch.tensor([[1.0, 4.0, 2.0, 4.0, 3.0]], requires_grad=True)
    TopK(3)(scores, torch.arange(5), {})[0, 1].backward()
    assert scores.grad[0].nonzero().squeeze(-1).tolist() == [1, 3, 4]


# ---- adaptive temperature


@pytest.mark.parametrize(
    ("entropy", "beta"),
    [(1, 1.27), (1.5, 1.85), (2, 2.10), (2.5, 2.20), (3, 2.25), (4, 2.39), (5, 2.29)],
)
def test_inverse_temperature_at_known_entropies(entropy, beta):
    assert inverse_temperature(torch.tensor(float(entropy))).item() == pytest.approx(beta, abs=5e-3)


def test_inverse_temperature_is_one_for_few_and_for_very_many_keys():
    entropies = torch.tensor([0.0, 0.3, 0.5, 0.51, 0.6, 5.93, 5.95, 6.5, 9.0])
    one = inverse_temperature(entropies) == 1
    assert one.tolist() == [True, True, True, True, True, False, True, True, True]


def test_adaptive_temperature_sharpens_by_the_entropy_of_the_row():
    """Three keys at ln 2 above three: p = 2/9, 1/9, H = 1.7351, β = 1.98822 by hand."""
    scores = torch.tensor([[math.log(2)] * 3 + [0.0] * 3])
    weights = AdaptiveTemperature()(scores, torch.arange(6), {})[0]
    entropy = -(3 * 2 / 9 * math.log(2 / 9) + 3 / 9 * math.log(1 / 9))
    beta = sum(c * entropy**p for p, c in enumerate((-1.791, 4.917, -2.3, 0.481, -0.037)))
    assert (weights[0] / weights[5]).log2().item() == pytest.approx(beta, rel=1e-5)


# ---- stick-breaking


def test_stick_breaking_walks_back_from_the_most_recent_key():
    logit = torch.tensor([[0.25, 0.5, 0.2]]).logit()
    weights = StickBreaking()(logit, torch.arange(3), {})[0]
    assert weights.tolist() == pytest.approx([0.25 * 0.5 * 0.8, 0.5 * 0.8, 0.2])


def test_stick_breaking_is_accurate_beside_large_scores():
    """A key that takes everything takes exactly what more recent keys have left."""
    scores = torch.tensor([[-1.0, 5e3, -2.0, -3.0]])
    weights = StickBreaking()(scores, torch.arange(4), {})[0]
    left = 1 / (1 + math.exp(-2)) / (1 + math.exp(-3))
    assert weights[1].item() == pytest.approx(left, rel=1e-6) and weights[0].item() == 0


def test_stick_breaking_is_accurate_behind_thousands_of_low_scores():
    scores = torch.full((1, 20_001), -12.0)
    scores[0, 0] = 0.0
    weights = StickBreaking()(scores, torch.arange(20_001), {})[0]
    left = 0.5 * math.exp(-20_000 * math.log1p(math.exp(-12)))
    assert weights[0].item() == pytest.approx(left, rel=1e-5)


# ---- entmax


def test_entmax_of_two_levels_has_the_support_of_the_two_level_lemma():
    """k keys at a gap Δ above the rest get 1/k each, exactly, once Δ ≥ k^-(α-1)/(α-1)."""
    gap = 2 / math.sqrt(5)
    for n in (10, 1000):
        for factor, support in ((1.001, 5), (0.98, n)):
            scores = torch.zeros(1, n)
            scores[0, :5] = factor * gap
            weights = Entmax(1.5)(scores, torch.arange(n), {})[0]
            assert (weights > 0).sum() == support
            if support == 5:
                assert_near(weights[:5], torch.full((5,), 0.2), 1e-6)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_entmax_of_two_keys_within_rounding_of_the_edge(alpha):
    """At a gap of 1/(α-1) the lower key leaves the support; a few ulps around it all is well."""
    torch.manual_seed(0)
    top = 3 * torch.randn(2000)
    for ulps in range(-6, 7):
        low = top - 1 / (alpha - 1)
        for _ in range(abs(ulps)):
            low = low.nextafter(torch.tensor(math.copysign(math.inf, ulps)))
        scores = torch.stack([low, top], dim=1).requires_grad_()
        weights = Entmax(alpha)(scores, torch.arange(2), {})
        assert_near(weights, torch.tensor([0.0, 1.0]).expand(2000, 2), 1e-5, f"{ulps} ulps")
        weights[:, 1].sum().backward()
        assert scores.grad.isfinite().all()


def test_a_key_below_the_threshold_changes_nothing():
    scores = torch.tensor([[1.0, 0.5, -2.0]])
    more = torch.cat([scores, torch.full((1, 50), -2.5)], dim=1)
    for alpha in (1.5, 2.0):
        one, other = (Entmax(alpha)(z, torch.arange(z.shape[1]), {})[0] for z in (scores, more))
        assert torch.equal(one, other[:3]) and (other[3:] == 0).all()


def test_learned_alpha_starts_at_its_option_and_learns_above_its_floor():
    start = LearnedEntmax(init="constant", alpha=1.25).learned(SIZES)["a"]
    assert_near(start.sigmoid(), torch.full((HEADS,), 0.25), 1e-6)
    a = torch.tensor([-10.0, 0.0, 3.0], requires_grad=True)
    minus_one = LearnedEntmax(floor=0.02).alpha_minus_one({"a": a})
    assert minus_one.flatten().tolist() == pytest.approx([0.02, 0.5, 1 / (1 + math.exp(-3))])
    minus_one.sum().backward()
    assert a.grad[0] == 0 and (a.grad[1:] > 0).all()


@pytest.mark.parametrize("steps", [1.0, 100.0, 1e4])
def test_top_k_in_one_pass_keeps_the_same_keys(steps):
    """Rows with ties, many to few of them, beside rows without: as statistics and weights do."""
    torch.manual_seed(0)
    count, normalizer = 40, TopK(k=8)
    hidden = torch.ones(count, count).triu(1).bool()
    scores = (torch.randn(4, 2, count, count) * steps).round() / steps
    scores = scores.masked_fill(hidden, -torch.inf).requires_grad_()
    cotangent, keys = torch.randn(scores.shape), torch.arange(count)
    found = []
    for way in (normalizer, partial(Normalizer.__call__, normalizer)):
        weights = way(scores, keys, {})
        found.append((weights, *torch.autograd.grad(weights, scores, cotangent)))
    assert torch.equal(found[0][0] > 0, found[1][0] > 0)
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("normalizer", [TopK(k=8), AdaptiveTemperature()], ids=label)
def test_rows_of_large_and_tied_scores_sum_to_one(normalizer):
    """In float32 too; each row with keys of its own, as after a search for candidates."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(-800, 801, (200, 1100), generator=draw) / 8
    for keys in (torch.arange(1100), torch.arange(1100).expand(200, -1)):
        sums = normalizer(scores, keys, {}).double().sum(dim=-1)
        assert_near(sums, torch.ones(200), 1e-6)
