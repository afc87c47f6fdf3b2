"""Options that change scores of all heads: the soft cap, and selective attention."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from oracles.registered import SIZES, assert_near, label, randomize, tokens

from lcg.attention import Attention
from lcg.attention.backends import blockwise
from lcg.attention.cache import LayerCache
from lcg.attention.layer import FullAttention, MultiHeadAttention, causal_attention
from lcg.attention.mask import Bias
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.relu import ReLU
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import LogScaling
from lcg.config import ConfigError, load_config
from lcg.config.schema import Model
from lcg.models.transformer import Decoder
from lcg.positional.base import PositionEncoding
from lcg.positional.nope import NoPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi

# ---- the soft cap


def layers_of(position, **options):
    """A layer with the options, and one of the same weights without."""
    torch.manual_seed(0)
    layers = [causal_attention(Attention(**own), position, SIZES[1]) for own in (options, {})]
    for layer in layers:
        randomize(layer)
    return layers


def test_a_soft_cap_by_hand():
    bias = Bias(torch.arange(1), torch.arange(1), softcap=50.0)
    scores = bias.capped(torch.tensor([60.0, -60.0, 1e-3]))
    assert scores.tolist() == pytest.approx([41.682730, -41.682730, 1e-3], rel=1e-6)


@torch.no_grad()
def test_the_cap_comes_after_the_scale_and_before_a_bias():
    (capped, _), x = layers_of(ALiBi(), softcap=0.5), torch.randn(1, 9, 10)
    _, plain = layers_of(NoPE())
    products = plain.scores(x)
    i = torch.arange(9)
    expected = 0.5 * (products / 0.5).tanh() - capped.slopes[:, None, None] * (i[:, None] - i)
    seen = i[:, None] >= i
    assert_near(capped.scores(x)[..., seen], expected[..., seen], 1e-6)


@pytest.mark.parametrize("normalizer", [Softmax(), Entmax(), ReLU()], ids=label)
def test_a_cap_in_tiles_and_its_gradient(monkeypatch, normalizer):
    for name, size in {"SMALL": 0, "KEPT": 0, "TILE": 512, "QUERIES": 8, "LONG": 32}.items():
        monkeypatch.setattr(blockwise, name, size)
    layer, _ = layers_of(ALiBi(), normalizer=normalizer, softcap=2.0)
    found, x = [], torch.randn(2, 45, 10)
    for backend in ("reference", "blockwise"):
        layer.backend = backend
        layer.zero_grad()
        out = layer(x)
        out.square().mean().backward()
        found.append([out.detach(), *(p.grad.clone() for p in layer.parameters())])
    for actual, expected in zip(*found, strict=True):
        assert_near(actual, expected, 1e-4)


@torch.no_grad()
def test_a_cap_keeps_more_keys_out_of_reach(monkeypatch):
    read = {}

    def counting(q, k, v, problem, buffer=None):
        read[cap] = read.get(cap, 0) + q.shape[2] * k.shape[2]
        return q.new_zeros(*q.shape[:3], v.shape[-1])

    monkeypatch.setattr(blockwise, "_attend_tile", counting)
    x = 20 * torch.randn(1, 4096, 10, generator=torch.Generator().manual_seed(0))
    for cap in (None, 5.0):
        layer, _ = layers_of(ALiBi("linear"), normalizer=Entmax(), softcap=cap)
        layer(x)
    assert 0 < 2 * read[5.0] < read[None]


def test_an_invalid_cap_is_refused():
    with pytest.raises(ValueError, match=r"attention\.softcap must be positive, got 0"):
        Attention(softcap=0.0)
    with pytest.raises(ValueError, match=r"attention\.softcap has no triton backend; use backend="):
        Attention(softcap=50.0, backend="triton")


# ---- selective attention


@dataclass
class Mixed(PositionEncoding):
    """Scores that a function makes of those of all heads."""

    name: ClassVar[str] = "mixed"

    def map_scores(self, scores, tile, learned):
        return scores + scores.mean(dim=1, keepdim=True)


def masked(s):
    """F [n n] of the scores s of head 0, one query after the other."""
    n, found = len(s), []
    for i in range(n):
        row = [0.0] * n
        for j in range(1, i):
            row[j] = sum(max(float(s[u][j]), 0.0) for u in range(j + 1, i))
        found.append(row)
    return found


def selective_layer(position=None, sizes=SIZES[1], **options):
    torch.manual_seed(0)
    layer = causal_attention(Attention(selective=True, **options), position or NoPE(), sizes)
    randomize(layer)
    return layer


def test_what_earlier_queries_mask_by_hand():
    s = [[1], [0.5, 2], [0.7, 1.5, -1], [0.2, -1, 0.4, 3]]
    assert masked(s)[3] == [0, 1.5, 0, 0] and masked(s)[:3] == [[0.0] * 4] * 3
    scores = torch.full((1, 1, 4, 4), 9.0)
    for i, row in enumerate(s):
        scores[0, 0, i, : i + 1] = torch.tensor(row)
    layer = selective_layer()
    order = torch.arange(4)
    # One head of products that are these scores: queries are units, keys their columns.
    bias = Bias(order, order, scale=1.0)
    found = layer._masked(torch.eye(4)[None, None], scores.mT, bias, LayerCache())
    assert_near(found[0, 0], torch.tensor(masked(s)), 1e-6)


@pytest.mark.parametrize("position", [NoPE(), ALiBi(), RoPE(), Mixed()], ids=label)
@pytest.mark.parametrize("normalizer", [Softmax(), Entmax()], ids=label)
@torch.no_grad()
def test_scores_of_all_heads_are_lowered_by_those_of_head_0(position, normalizer):
    layer = selective_layer(position, normalizer=normalizer, scaling=LogScaling())
    plain = MultiHeadAttention(Attention(normalizer, LogScaling()), position, SIZES[1])
    plain.load_state_dict(layer.state_dict())
    for length in (1, 2, 7):
        x = torch.randn(2, length, 10)
        own, before = layer.scores(x), plain.scores(x)
        for b in range(2):
            expected = before[b] - torch.tensor(masked(before[b, 0]))
            assert_near(own[b].nan_to_num(neginf=0), expected.nan_to_num(neginf=0), 1e-5)
        weights = normalizer(own, torch.arange(length), {})
        assert_near(layer.weights(x), weights, 1e-6)


@torch.no_grad()
def test_selective_decoding_and_padding_change_nothing():
    attention = load_config(["attention=selective"], fitting=False).attention
    torch.manual_seed(0)
    model = Decoder(Model(d_model=16, heads=4, d_ff=12), attention, ALiBi(), 11, pad=10)
    randomize(model)
    words = tokens(2, 23) % 10
    whole = model(words)
    for chunks in ([5, 1, 1, 12, 4], [1, 22]):
        cache = model.make_cache(23)
        parts = [model(part, cache=cache) for part in words.split(chunks, dim=1)]
        assert_near(torch.cat(parts, dim=1), whole, 1e-5)
    some = torch.tensor([20, 0, 4])
    assert_near(model(words, select=some), whole[:, some], 1e-5)
    padded = torch.nn.functional.pad(words, (0, 4), value=10)
    assert_near(model(padded)[:, :23], whole, 1e-5)
    assert_near(model.to(torch.bfloat16)(words), whole, 0.1)


def test_the_gradient_of_selective_attention_is_that_of_its_formula():
    """In float64, through F too; by the formula with the layer's own projections."""
    layer = selective_layer(sizes=SIZES[0])
    x = torch.randn(1, 6, 16, requires_grad=True)
    cotangent = torch.randn(1, 6, 16)
    layer(x).backward(cotangent)
    state = {k: p.detach().double().requires_grad_() for k, p in layer.named_parameters()}
    wide = x.detach().double()[0].requires_grad_()
    q, k, v = (
        (wide @ state[f"{name}.weight"].mT).view(6, 4, 4).transpose(0, 1)
        for name in ("query", "key", "value")
    )
    s = q @ k.mT / 2
    heads = torch.zeros(4, 6, 4, dtype=torch.float64)
    for i in range(6):
        lowered = torch.stack([s[0, :i, j] for j in range(i + 1)], dim=1)  # queries before i
        spared = torch.arange(i)[:, None] <= torch.arange(i + 1)
        lowered = lowered.clamp_min(0).masked_fill(spared, 0).sum(0)
        lowered = torch.cat([torch.zeros(1), lowered[1:]])
        p = (s[:, i, : i + 1] - lowered).softmax(-1)
        heads = heads.index_copy(1, torch.tensor([i]), (p[:, None] @ v[:, : i + 1]))
    out = heads.transpose(0, 1).flatten(1) @ state["output.weight"].mT
    out.backward(cotangent[0].double())
    assert_near(x.grad[0], wide.grad, 1e-5)
    for name, parameter in layer.named_parameters():
        assert_near(parameter.grad, state[name].grad, 1e-5, name)


def test_selective_attention_elsewhere_is_refused():
    for backend in ("blockwise", "triton"):
        with pytest.raises(ValueError, match=f"attention.selective has no {backend} backend"):
            Attention(selective=True, backend=backend)
    assert Attention(selective=True).backend == "reference"
    for kind in (FullAttention, MultiHeadAttention):
        with pytest.raises(ValueError, match=r"attention\.selective=true runs in Selective"):
            kind(Attention(selective=True), NoPE(), SIZES[0])
    with pytest.raises(ConfigError, match=r"in causal attention only and model\.kind=encoder"):
        load_config(["task=masked_lm", "attention=selective", "model.kind=encoder"])
