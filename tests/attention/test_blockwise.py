"""The blockwise backend: exact in every tile, nothing quadratic in memory, and keys left unread."""

import itertools

import numpy as np
import pytest
import torch
from oracles.entmax import entmax_row
from oracles.registered import assert_near, label, labels, variants
from sampling import sampled
from torch.utils._python_dispatch import TorchDispatchMode

from lcg.attention.backends import blockwise
from lcg.attention.backends.reference import attention_weights
from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.relu import ReLU, ReLUPerKey, ThresholdReLU
from lcg.attention.normalizers.sigmoid import Sigmoid
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.softpick import Softpick
from lcg.attention.normalizers.topk import TopK
from lcg.positional.base import Sizes

HEADS, SHARED, WIDTH = 4, 2, 8
SIZES = Sizes(HEADS, SHARED, WIDTH, HEADS * WIDTH)
SLOPES = torch.tensor([2.0, 0.5, 0.25, 0.0])


@pytest.fixture
def small(monkeypatch):
    """Tiles so small that a short sequence has many of every kind."""
    sizes = {
        "TILE": 96,
        "SMALL": 96,
        "KEPT": 96,
        "QUERIES": 6,
        "LEAST_QUERIES": 2,
        "KEY_BLOCK": 3,
        "SEGMENT": 4,
        "LONG": 10,
    }
    for name, value in sizes.items():
        monkeypatch.setattr(blockwise, name, value)


def problem(normalizer, queries, keys, causal=True, masked=False, slopes=SLOPES, seed=0, scale=2.0):
    torch.manual_seed(seed)
    q = scale * torch.randn(2, HEADS, queries, WIDTH)
    k, v = torch.randn(2, 2, SHARED, keys, WIDTH)
    k = k * torch.rand(2, SHARED, keys, 1) * 2  # norms that differ, so that bounds do
    positions = torch.arange(keys) * 2 + 3
    mask = None
    if masked:
        mask = torch.rand(2, keys) < 0.7
        mask[0, keys // 2 :] = False  # right padding
    bias = Bias(positions[-queries:], positions, slopes, causal=causal, key_mask=mask)
    learned = {name: t.detach() for name, t in normalizer.learned(SIZES).items()}
    return q, k, v, bias, learned


def both(normalizer, q, k, v, bias, learned, extra=()):
    """Outputs and gradients of both backends."""
    leaves = [t.requires_grad_() for t in (q, k, v, *learned.values(), *extra)]
    torch.manual_seed(1)
    cotangent = torch.randn(*q.shape)
    found = []
    for backend in ("blockwise", "reference"):
        out = attend(q, k, v, normalizer, bias, learned, backend)
        gradients = torch.autograd.grad(out, leaves, cotangent, allow_unused=True)
        found.append([out, *gradients])
    return found


CASES = list(itertools.product((True, False), (False, True), (SLOPES, None)))


@pytest.mark.parametrize(
    "row", sampled(variants("normalizer"), [(37, 37), (1, 41), (11, 41)], seed="tiles"), ids=labels
)
def test_tiles_are_as_the_whole(small, row):
    normalizer, (queries, keys) = row
    for causal, masked, slopes in CASES:
        parts = problem(normalizer, queries, keys, causal, masked, slopes)
        actual, expected = both(normalizer, *parts)
        for a, e, name in zip(actual, expected, ("out", "q", "k", "v", "learned"), strict=False):
            assert_near(a, e, 1e-5 if name == "out" else 1e-4, f"{name} {causal} {masked}")


@pytest.mark.parametrize("normalizer", [Softmax(), Entmax()], ids=label)
def test_a_bias_that_is_more_than_slopes(small, normalizer):
    """It is asked for tile by tile, and what it learned gets its gradient."""
    q, k, v, bias, learned = problem(normalizer, 37, 37)
    weight = torch.randn(HEADS, 1, 1, requires_grad=True)
    asked = []

    def additive(tile, learned):
        asked.append(tile.distance.numel())
        return learned["weight"] * (tile.distance.abs() + 1.0).log()

    more = bias._replace(additive=additive, learned={"weight": weight})
    actual, expected = both(normalizer, q, k, v, more, learned, extra=(weight,))
    for a, e in zip(actual, expected, strict=True):
        assert_near(a, e, 1e-4)
    attend(q, k, v, normalizer, more, learned, "blockwise")
    assert asked[-1] < 37 * 37 / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_in_and_out(small, dtype):
    for normalizer in (Softmax(), Entmax(), TopK(k=3)):
        q, k, v, bias, learned = problem(normalizer, 37, 37)
        low = [tensor.to(dtype) for tensor in (q, k, v)]
        out = attend(*low, normalizer, bias, learned, "blockwise")
        assert out.dtype == dtype
        exact = attend(*(tensor.float() for tensor in low), normalizer, bias, learned, "reference")
        assert_near(out, exact, 2e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize(
    "normalizer", [Entmax(), Entmax(2.0), Entmax(1.2), Entmax(4.0), LearnedEntmax(), ReLU()],
    ids=label,
)  # fmt: skip
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_no_key_with_weight_is_out_of_reach(small, normalizer, causal, masked):
    """Also where the nearest visible key is far away: masked, or positions of another sequence."""
    for seed in range(10):
        q, k, _, bias, learned = problem(normalizer, 23, 41, causal, masked, seed=seed, scale=4.0)
        if not causal:
            bias = bias._replace(q_positions=bias.q_positions + 30 * (seed % 3) - 30)
        weights = attention_weights(q, k, normalizer, bias, learned)
        whole = blockwise.Problem(normalizer, bias, learned)
        seen = torch.zeros_like(weights, dtype=torch.bool)
        for tile in blockwise.tiles(q, k, whole):
            seen[:, tile.heads, tile.queries, tile.keys] = True
        assert (weights[~seen] == 0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_softmax_reads_no_key_whose_weight_underflows(small, causal):
    for seed in range(5):
        q, k, v, bias, learned = problem(Softmax(), 23, 41, causal, seed=seed, scale=4.0)
        bias = bias._replace(slopes=torch.full((HEADS,), 20.0))
        weights = attention_weights(q, k, Softmax(), bias, learned)
        seen = torch.zeros_like(weights, dtype=torch.bool)
        for tile in blockwise.tiles(q, k, blockwise.Problem(Softmax(), bias, learned)):
            seen[:, tile.heads, tile.queries, tile.keys] = True
        assert (weights[~seen] == 0).all() and 0.1 < seen.float().mean() < 0.8
        shared = v.repeat_interleave(HEADS // SHARED, dim=1)
        out = attend(q, k, v, Softmax(), bias, learned, "blockwise")
        assert_near(out, weights @ shared, 1e-5)


@pytest.mark.parametrize("normalizer", [Entmax(4.0), Entmax(1.2), TopK(k=3)], ids=label)
def test_candidates_hold_the_support(monkeypatch, normalizer):
    monkeypatch.setattr(blockwise, "SEGMENT", 4)
    torch.manual_seed(0)
    for scores in (torch.randn(2, 3, 5, 803) * 9, torch.randn(2, 3, 5, 803).round() * 6):
        scores[..., 600:] = -torch.inf
        scores[..., 300:] -= 20 * (scores[..., 300:] < 12)
        weights = normalizer(scores, torch.arange(803), {})
        _, keys = blockwise.candidates(scores, normalizer, {})
        assert keys is not None and keys.shape[-1] < 300
        assert (keys.diff(dim=-1) > 0).all()
        inside = torch.zeros_like(weights, dtype=torch.bool).scatter(-1, keys, True)
        assert (weights[~inside] == 0).all()


class Largest(TorchDispatchMode):
    """The most elements that any tensor made in here had."""

    found = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        out = function(*arguments, **(named or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.found = max(self.found, tensor.untyped_storage().nbytes() // 4)
        return out


LONG = [Softmax(), LearnedEntmax(), Softpick()]
SLOW = [Entmax(), TopK(k=8), Sigmoid(), ReLUPerKey(), ThresholdReLU()]


@pytest.mark.parametrize(
    "normalizer", [*LONG, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)], ids=label
)
def test_memory_is_linear_forward_and_backward(normalizer, monkeypatch):
    monkeypatch.setattr(blockwise, "TILE", 2**13)
    monkeypatch.setattr(blockwise, "SMALL", 2**13)
    monkeypatch.setattr(blockwise, "KEPT", 2**13)
    largest = []
    for count in (512, 1024):
        q, k, v, bias, learned = problem(normalizer, count, count)
        leaves = [tensor.requires_grad_() for tensor in (q, k, v, *learned.values())]
        with Largest() as mode:
            out = attend(q, k, v, normalizer, bias, learned, "blockwise")
            torch.autograd.grad(out.sum(), leaves)
        largest.append(mode.found)
    assert largest[1] < 2.1 * largest[0]
    assert largest[1] < 2 * HEADS * 1024 * 1024 / 8


def test_keys_read_by_a_slope_head_do_not_grow_with_the_sequence(monkeypatch):
    """At 512 tokens from its end, and no more of it at 4,096 than at 2,048."""
    monkeypatch.setattr(blockwise, "KEPT", 2**20)
    read = []
    for count in (2048, 4096):
        q, k, v, bias, learned = problem(Entmax(), count, count, slopes=torch.full((HEADS,), 0.5))
        v[:, :, : count - 512] = torch.nan
        out = attend(q, k, v, Entmax(), bias, learned, "blockwise")
        assert out[:, :, -128:].isfinite().all()
        whole = blockwise.Problem(Entmax(), bias, learned)
        read.append(max(t.keys.stop - t.keys.start for t in blockwise.tiles(q, k, whole)))
    assert read[1] <= read[0] + blockwise.KEY_BLOCK <= 512


def entmax_gradient(weights: np.ndarray, grad: np.ndarray, alpha: float) -> np.ndarray:
    """Gradient in the scores, row by row: s (g - Σ s g / Σ s), s = p^(2-α) on the support."""
    s = np.where(weights > 0, weights, 1.0) ** (2 - alpha) * (weights > 0)
    mean = (s * grad).sum(-1, keepdims=True) / s.sum(-1, keepdims=True)
    return s * (grad - mean)


@pytest.mark.parametrize("alpha", [1.05, 1.2, 1.5, 2.0])
@pytest.mark.parametrize("kind", ["random", "large", "one-hot", "tied", "dense"])
def test_long_rows_match_the_definition(monkeypatch, alpha, kind):
    """Output and gradients of q, k and v in float64, from numpy; `large` are scores up to 100.

    There the products q·k themselves are off by some 1e-5 in float32, and with them the output of
    whatever is exact from there on: it is held to 1e-5 given these scores.
    """
    torch.manual_seed(0)
    count = 2000
    q, k, v = (torch.randn(1, 1, n, WIDTH) for n in (40, count, count))
    q = q * {"one-hot": 2.0, "random": 2.0, "dense": 0.01}.get(kind, 1.0)
    if kind == "large":
        q *= 100 / (q @ k.mT / WIDTH**0.5).abs().max()
    if kind == "one-hot":
        k[:, :, 700] *= 20
    if kind == "tied":
        q, k = q.round(), k.round()
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    bias = Bias(torch.arange(40), torch.arange(count), causal=False)
    for name in ("TILE", "SMALL", "KEPT"):
        monkeypatch.setattr(blockwise, name, 2**15)
    out = attend(q, k, v, Entmax(alpha), bias, {}, "blockwise")
    cotangent = torch.randn(out.shape)
    found = torch.autograd.grad(out, leaves, cotangent)

    q64, k64, v64, grad = (t[0, 0].detach().double().numpy() for t in (q, k, v, cotangent))
    exact = q64 @ k64.T / WIDTH**0.5
    rounded = ((q * WIDTH**-0.5) @ k.mT)[0, 0].detach().double().numpy()
    scores = rounded if kind == "large" else exact
    weights = np.stack([entmax_row(row, alpha) for row in scores])
    in_scores = entmax_gradient(weights, grad @ v64.T, alpha) / WIDTH**0.5
    expected = [in_scores @ k64, in_scores.T @ q64, weights.T @ grad]
    assert np.abs(out[0, 0].detach().double().numpy() - weights @ v64).max() < 1e-5
    for name, actual, wanted in zip("qkv", found, expected, strict=True):
        error = np.abs(actual[0, 0].double().numpy() - wanted).max()
        assert error < 1e-4 * max(1.0, np.abs(wanted).max()), name


@pytest.mark.parametrize("kind", ["random", "large", "one-hot", "tied", "dense"])
def test_long_softmax_rows_match_the_definition(monkeypatch, kind):
    """Outputs in float64, from numpy, with slopes and with padded keys, one row without any key."""
    torch.manual_seed(0)
    count = 2000
    q, k, v = (torch.randn(2, 2, n, WIDTH) for n in (40, count, count))
    q = q * {"random": 2.0, "large": 10.0, "one-hot": 2.0, "tied": 1.0, "dense": 0.01}[kind]
    if kind == "one-hot":
        k[:, :, 700] *= 20
    if kind == "tied":
        q, k = q.round(), k.round()
    slopes = torch.tensor([0.01, 0.0])
    seen = torch.arange(count) < torch.tensor([[1500], [0]])
    positions = torch.arange(count)
    bias = Bias(positions[-40:], positions, slopes, key_mask=seen)
    monkeypatch.setattr(blockwise, "TILE", 2**15)
    monkeypatch.setattr(blockwise, "SMALL", 2**15)
    with torch.no_grad():
        out = attend(q, k, v, Softmax(), bias, {}, "blockwise")
    distance = np.abs(positions[-40:].numpy()[:, None] - positions.numpy())
    scores = q[0].double().numpy() @ k[0].double().numpy().swapaxes(1, 2) / WIDTH**0.5
    scores = (scores - slopes.double().numpy()[:, None, None] * distance)[:, :, :1500]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = weights @ v[0, :, :1500].double().numpy()
    assert np.abs(out[0].double().numpy() - expected).max() < 1e-5
    assert (out[1] == 0).all()


def test_gradients_of_tiles_add_up_in_float32(small):
    """Two hundred tiles give each value 1.5: in bfloat16 the sum would stay where that rounds."""
    q, k = torch.zeros(1, 1, 1200, 8), torch.zeros(1, 1, 4, 8)
    v = torch.zeros(1, 1, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    bias = Bias(torch.arange(1200), torch.arange(4), causal=False)
    out = attend(q.bfloat16(), k.bfloat16(), v, Entmax(), bias, backend="blockwise")
    out.sum().backward()
    assert (v.grad == 300).all()


@pytest.mark.parametrize("normalizer", [Entmax(), Softmax()], ids=label)
def test_autocast_changes_nothing(small, normalizer):
    """Nor in a backward pass inside of it, of tiles."""
    problem_ = problem(normalizer, 60, 60)
    plain = both(normalizer, *problem_)
    with torch.autocast("cpu", torch.bfloat16):
        tiles, (whole, *_) = both(normalizer, *problem_)
    assert torch.equal(whole, plain[1][0])
    assert all(torch.equal(a, b) for a, b in zip(tiles, plain[0], strict=True))


def test_where_positions_start_makes_no_difference(small):
    q, k, v, bias, learned = problem(Entmax(), 37, 37)
    far = bias._replace(q_positions=bias.q_positions + 2**24, k_positions=bias.k_positions + 2**24)
    for name in ("reference", "blockwise"):
        assert torch.equal(
            attend(q, k, v, Entmax(), far, learned, name),
            attend(q, k, v, Entmax(), bias, learned, name),
        )


class Softened(Softmax):
    name = "softened"

    def __call__(self, scores, keys, learned):
        return super().__call__(scores / 4, keys, learned)


class SoftenedEntmax(Entmax):
    name = "softened_entmax"

    def __call__(self, scores, keys, learned):
        return super().__call__(scores / 4, keys, learned)


class Cooling:
    def __call__(self, scores, keys, learned):
        return super().__call__(scores / 4, keys, learned)


class CoolEntmax(Cooling, Entmax):
    name = "cool_entmax"


@pytest.mark.parametrize(
    "normalizer", [Softened(), SoftenedEntmax(), SoftenedEntmax(1.25), CoolEntmax()], ids=label
)
def test_a_class_with_weights_of_its_own_is_not_taken_for_its_parent(small, normalizer):
    q, k, v, bias, learned = problem(normalizer, 37, 37)
    actual, expected = both(normalizer, q, k, v, bias, learned)
    for a, e in zip(actual, expected, strict=True):
        assert_near(a, e, 1e-4)
    with pytest.raises(ValueError, match="no triton backend"):
        attend(q, k, v, normalizer, bias, learned, "triton")
