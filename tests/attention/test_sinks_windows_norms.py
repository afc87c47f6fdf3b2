"""Sinks, windows and QK-norm, held to formulas of one row at a time."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from oracles import attention as oracle
from oracles.encodings_rotary import rope
from oracles.registered import assert_near, label, randomize, variants

from lcg.attention import Attention
from lcg.attention.backends import blockwise
from lcg.attention.layer import FullAttention, MultiHeadAttention
from lcg.attention.normalizers.entmax import Entmax, LearnedEntmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.normalizers.stick_breaking import StickBreaking
from lcg.attention.normalizers.topk import TopK
from lcg.config.schema import Model
from lcg.models.transformer import Decoder
from lcg.positional.base import PositionEncoding, Sizes
from lcg.positional.groups import Heads
from lcg.positional.nope import NoPE
from lcg.positional.slopes import ALiBi

SIZES = Sizes(heads=4, kv_heads=2, head_dim=8, d_model=32)
WITH_SINK = [n for n in variants("normalizer") if n.elementwise and n.rows_sum_to_one]


@dataclass
class Window(PositionEncoding):
    """Head h sees the nearest h + 1 keys, the last head all (Hard-ALiBi, 2402.01032)."""

    name: ClassVar[str] = "window"

    def window(self, heads):
        return [*range(1, heads), None]


@pytest.fixture
def small(monkeypatch):
    """Tiles of a few rows, so that short sequences have many."""
    for name, size in {"SMALL": 0, "KEPT": 0, "TILE": 512, "QUERIES": 8, "LONG": 32}.items():
        monkeypatch.setattr(blockwise, name, size)


def layer_of(position, kind=MultiHeadAttention, **parts):
    torch.manual_seed(0)
    layer = kind(Attention(**parts), position, SIZES)
    randomize(layer)
    return layer


def both(layer, x):
    """Outputs and gradients by the reference and in tiles."""
    found = []
    for backend in ("reference", "blockwise"):
        layer.backend = backend
        layer.zero_grad()
        out = layer(x)
        out.square().mean().backward()
        found.append([out.detach(), *(p.grad.clone() for p in layer.parameters())])
    return found


@pytest.mark.parametrize("sink", ["zero", "learned"])
@pytest.mark.parametrize("normalizer", WITH_SINK, ids=label)
@torch.no_grad()
def test_a_sink_is_one_more_score_whose_weight_is_dropped(normalizer, sink):
    layer = layer_of(ALiBi(), normalizer=normalizer, sink=sink)
    x = torch.randn(1, 9, 32)
    scores, weights = layer.scores(x)[0].double(), layer.weights(x)[0].double()
    state = {name: t.double() for name, t in layer.normalizer_state.items()}
    extra = state.pop("sink", torch.zeros(4, dtype=torch.float64))
    formula, options = oracle.NORMALIZERS[normalizer.name], vars(normalizer)
    for h in range(4):
        for i in range(9):
            z = torch.cat([extra[h : h + 1], scores[h, i, : i + 1]])
            expected = formula(z, options, state, h)[1:]
            assert_near(weights[h, i, : i + 1], expected, 2e-5)
    total = weights.sum(dim=-1)
    assert total.max() <= 1 + 1e-6 and total.min() < 0.9


@pytest.mark.parametrize("normalizer", WITH_SINK, ids=label)
def test_a_sink_in_tiles_and_its_gradient(small, normalizer):
    layer = layer_of(ALiBi(), normalizer=normalizer, sink="learned")
    found, expected = both(layer, torch.randn(2, 45, 32))
    scale = max(gradient.abs().max().item() for gradient in expected[1:])
    for actual, wanted in zip(found, expected, strict=True):
        assert_near(actual, wanted, 1e-4, at_least=0.05 * scale)
    if normalizer != TopK(k=1):  # whose one weight is 1
        assert layer.normalizer_state["sink"].grad.abs().min() > 0


def test_a_sink_that_would_change_nothing_is_refused():
    for normalizer in (ReLU(), StickBreaking()):
        with pytest.raises(ValueError, match=r"attention\.sink=zero .*use attention\.sink=none"):
            Attention(normalizer, sink="zero")
    with pytest.raises(ValueError, match="no triton backend"):
        Attention(Softmax(), backend="triton", sink="zero")


def test_a_learned_alpha_is_known_with_a_sink():
    layer = layer_of(NoPE(), normalizer=LearnedEntmax(), sink="learned")
    alpha = 1 + layer.normalizer.alpha_minus_one(layer.normalizer_state)
    assert layer.normalizer.learns_alpha and alpha.shape == (4, 1, 1)


@pytest.mark.parametrize("kind", [MultiHeadAttention, FullAttention])
@pytest.mark.parametrize("normalizer", [Softmax(), Entmax()], ids=label)
@torch.no_grad()
def test_a_window_hides_all_but_the_nearest_keys(kind, normalizer):
    layer, x = layer_of(Window(), kind, normalizer=normalizer), torch.randn(1, 9, 32)
    plain = layer_of(NoPE(), kind, normalizer=normalizer)
    weights, scores = layer.weights(x)[0], plain.scores(x)[0].double()
    formula, options = oracle.NORMALIZERS[normalizer.name], vars(normalizer)
    for h in range(4):
        for i in range(9):
            last = i if kind is MultiHeadAttention else 8
            seen = [j for j in range(last + 1) if h == 3 or abs(i - j) <= h]
            assert weights[h, i].nonzero().flatten().tolist() == [
                j
                for j, p in zip(seen, formula(scores[h, i, seen], options, {}, h), strict=True)
                if p
            ]
            expected = formula(scores[h, i, seen], options, {}, h)
            assert_near(weights[h, i, seen], expected, 1e-5)


@pytest.mark.parametrize(
    "position", [Window(), Heads([Window(), NoPE()], [2, 2])], ids=["alone", "group"]
)
@pytest.mark.parametrize("normalizer", [Softmax(), Entmax(), ReLU()], ids=label)
def test_windows_in_tiles_and_their_gradient(small, position, normalizer):
    layer = layer_of(position, normalizer=normalizer)
    found, expected = both(layer, torch.randn(2, 45, 32))
    scale = max(gradient.abs().max().item() for gradient in expected[1:])
    for actual, wanted in zip(found, expected, strict=True):
        assert_near(actual, wanted, 1e-4, at_least=0.05 * scale)


@torch.no_grad()
def test_keys_beyond_every_window_are_not_read(monkeypatch):
    read = []

    def counting(q, k, v, problem, buffer=None):
        read.append(q.shape[2] * k.shape[2])
        return q.new_zeros(*q.shape[:3], v.shape[-1])

    @dataclass
    class Short(PositionEncoding):
        name: ClassVar[str] = "short"

        def window(self, heads):
            return [64] * heads

    monkeypatch.setattr(blockwise, "_attend_tile", counting)
    layer_of(Short())(torch.randn(1, 8192, 32))
    assert sum(read) < 0.1 * 8192**2 / 2


@torch.no_grad()
def test_a_decoder_with_windows_continues_what_it_has_read():
    model = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=16)
    decoder = Decoder(model, Attention(Entmax(), qk_norm=True, sink="learned"), Window(), 11, 10)
    randomize(decoder)
    words = torch.randint(10, (2, 23))
    whole, cache = decoder(words), decoder.make_cache(23)
    parts = [decoder(part, cache=cache) for part in words.split([5, 1, 1, 16], dim=1)]
    assert_near(torch.cat(parts, dim=1), whole, 1e-5)


@torch.no_grad()
def test_queries_and_keys_are_normed_before_they_are_rotated():
    from lcg.positional.rotary import RoPE

    layer, x = layer_of(RoPE(), qk_norm=True), torch.randn(1, 6, 32)
    sizes = {"query": 4, "key": 2}
    normed = {}
    for name, heads in sizes.items():
        rows = getattr(layer, name)(x)[0].double().view(6, heads, 8)
        scale = getattr(layer, f"{name}_norm").scale.double()
        normed[name] = [
            [
                scale * row / math.sqrt(sum(float(value) ** 2 for value in row) / 8 + 1e-6)
                for row in token
            ]
            for token in rows
        ]
    scores = layer.scores(x)[0]
    for h in range(4):
        for i in range(6):
            for j in range(i + 1):
                q = rope(normed["query"][i][h], i, vars(RoPE()))
                k = rope(normed["key"][j][h // 2], j, vars(RoPE()))
                expected = float(q @ k) / math.sqrt(8)
                assert scores[h, i, j].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("window", [[0, 1, 2, 3], [1, 2], [1.0, 2, 3, 4]])
def test_an_invalid_window_is_refused(window):
    @dataclass
    class Wrong(PositionEncoding):
        name: ClassVar[str] = "wrong"

        def window(self, heads):
            return window

    with pytest.raises(ValueError, match=r"Wrong\.window\(\) returned"):
        layer_of(Wrong())
