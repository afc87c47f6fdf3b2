"""Published methods as files of a user's own, held to formulas that share no code with them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import published
from oracles.registered import assert_near, randomize

from lcg.attention import Attention
from lcg.attention.backends import blockwise
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.entmax import Entmax
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.output_norms import NoNorm
from lcg.attention.scalings import LogScaling, NoScaling
from lcg.config.schema import Model
from lcg.models.transformer import Decoder
from lcg.positional.base import Sizes
from lcg.positional.groups import NAPE, Heads, Layers
from lcg.positional.nope import NoPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi
from lcg.registry import find

FOLDER = Path(__file__).parent / "published"
SIZES = Sizes(heads=4, kv_heads=4, head_dim=8, d_model=32)
ENCODINGS = {
    "fox": ("fox.py:FoX", {}),
    "fox-bias": ("fox.py:FoX", {"gates": "bias"}),
    "random_rope": ("randomised.py:RandomRoPE", {"longest": 64}),
    "random_alibi": ("randomised.py:RandomALiBi", {"longest": 64}),
    "t5": ("t5.py:T5", {"buckets": 8, "farthest": 16}),
    "fire": ("fire.py:FIRE", {"train_length": 8, "hidden": 5}),
    "pope": ("pope.py:PoPE", {"base": 100.0}),
    "scale_invariant": ("scale_invariant.py:ScaleInvariant", {}),
    "additive_part": ("scale_invariant.py:ScaleInvariant", {"multiply": False}),
    "dape": ("dape.py:DAPE", {"hidden": 6}),
    "cope": ("cope.py:CoPE", {"most": 4}),
    "yarn": ("yarn.py:YaRN", {"train_length": 64, "base": 100.0}),
}
encodings = pytest.mark.parametrize("key", ENCODINGS)


def make(kind, file, **options):
    return find(kind, f"{FOLDER / file}")(**options)


def encoding(key):
    file, options = ENCODINGS[key]
    return make("position", file, **options)


def ids_of(position, rows, length, seed=0):
    if not position.has("draw_positions"):
        return None
    rng = np.random.default_rng(seed)
    return torch.from_numpy(position.draw_positions(rng, np.full(rows, length), False))


def layer_of(position, normalizer=None, sizes=SIZES, output_norm=None):
    torch.manual_seed(1)
    attention = Attention(normalizer or Softmax(), output_norm=output_norm or NoNorm())
    layer = MultiHeadAttention(attention, position, sizes)
    randomize(layer)
    return layer


def decoder_of(position, normalizer=None, scaling=None, layers=2):
    torch.manual_seed(1)
    model = Model(layers=layers, d_model=32, heads=4, d_ff=16)
    attention = Attention(normalizer or Softmax(), scaling or NoScaling())
    decoder = Decoder(model, attention, position, 11, pad=10)
    randomize(decoder)
    return decoder.eval()


@pytest.fixture
def small(monkeypatch):
    """Tiles of a few rows, so that short sequences have many."""
    for name, size in {"SMALL": 0, "KEPT": 0, "TILE": 512, "QUERIES": 8, "LONG": 32}.items():
        monkeypatch.setattr(blockwise, name, size)


def test_every_file_is_short():
    for file in FOLDER.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, file.name


@encodings
@pytest.mark.parametrize("length", [1, 7])
def test_scores_are_those_of_the_formula(key, length):
    position = encoding(key)
    layer = layer_of(position)
    x, ids = torch.randn(1, length, 32), ids_of(position, 1, length)
    actual = layer.scores(x, ids)[0].detach().double()
    q, k = (
        projection(x)[0].detach().double().view(length, 4, 8).transpose(0, 1)
        for projection in (layer.query, layer.key)
    )
    learned = {name: t.detach().double() for name, t in layer.position_state.items()}
    options = dataclasses.asdict(position)
    numbers = list(range(length)) if ids is None else ids[0].tolist()
    given = published.Given(q, k, x[0].double(), numbers, learned, options)
    for h in range(4):
        for i in range(length):
            for j in range(i + 1):
                expected = published.SCORES[position.name](given, h, i, j)
                assert actual[h, i, j].item() == pytest.approx(expected, rel=2e-4, abs=2e-5)


@encodings
@pytest.mark.parametrize("normalizer", [Softmax(), Entmax()], ids=["softmax", "entmax"])
@torch.no_grad()
def test_cached_decoding_is_the_whole_and_padding_changes_nothing(key, normalizer):
    position = encoding(key)
    model = decoder_of(position, normalizer, LogScaling())
    words, ids = torch.randint(10, (2, 23)), ids_of(position, 2, 23)
    whole = model(words, ids=ids)
    for chunks in (1, [5, 1, 12, 5]):
        cache = model.make_cache(23, ids)
        parts = [model(part, cache=cache) for part in words.split(chunks, dim=1)]
        assert_near(torch.cat(parts, dim=1), whole, 2e-5)
    some = torch.tensor([20, 0, 4])
    assert_near(model(words, ids, some), whole[:, some], 2e-5)
    padded = torch.nn.functional.pad(words, (0, 4), value=10)
    wide = None if ids is None else torch.nn.functional.pad(ids, (0, 4))
    assert_near(model(padded, ids=wide)[:, :23], whole, 2e-5)


@encodings
@torch.no_grad()
def test_sequences_may_have_ids_of_their_own(key):
    """Ids that a task gives may repeat and fall: a batch is as each sequence alone, and chunks are
    as the whole."""
    position = encoding(key)
    model = decoder_of(position)
    words, ids = torch.randint(10, (2, 9)), torch.tensor([[0, 1, 2, 1, 2, 1, 5, 3, 3], [*range(9)]])
    whole = model(words, ids=ids)
    for row in range(2):
        assert_near(model(words[[row]], ids=ids[row]), whole[[row]], 2e-5)
    cache = model.make_cache(9, ids)
    chunks = [model(part, cache=cache) for part in words.split([4, 1, 4], dim=1)]
    assert_near(torch.cat(chunks, dim=1), whole, 2e-5)


@encodings
@pytest.mark.parametrize("normalizer", [Softmax(), Entmax(), Entmax(2.0)], ids=["1", "1.5", "2"])
def test_tiles_are_as_the_whole(small, key, normalizer):
    position = encoding(key)
    model = decoder_of(position, normalizer)
    words, ids = torch.randint(10, (2, 45)), ids_of(position, 2, 45)
    found = {}
    for backend in ("reference", "blockwise"):
        for layer in model.attention_layers().values():
            layer.backend = backend
        model.zero_grad()
        out = model(words, ids=ids)
        out.square().mean().backward()
        found[backend] = [out.detach(), *(p.grad.clone() for p in model.parameters())]
    scale = max(gradient.abs().max().item() for gradient in found["reference"][1:])
    for actual, expected in zip(found["blockwise"], found["reference"], strict=True):
        assert_near(actual, expected, 1e-4, at_least=0.05 * scale)


@torch.no_grad()
def test_fox_with_gates_of_the_bias_is_alibi_with_learned_slopes():
    layer = layer_of(make("position", "fox.py:FoX", gates="bias"))
    alibi = layer_of(ALiBi())
    alibi.load_state_dict({k: v for k, v in layer.state_dict().items() if "position" not in k})
    alibi._slopes = -torch.nn.functional.logsigmoid(layer.position_state["b"])
    x = torch.randn(2, 50, 32)
    assert_near(layer(x), alibi(x), 1e-6)


def test_the_cost_of_fox_under_entmax_follows_the_decay(monkeypatch):
    """At 16,384 tokens the keys that are read are those that the decay leaves."""
    read = {}
    attend_tile = blockwise._attend_tile

    def counting(q, k, v, problem, buffer=None):
        read[start] = read.get(start, 0) + q.shape[2] * k.shape[2]
        return q.new_zeros(*q.shape[:3], v.shape[-1])

    monkeypatch.setattr(blockwise, "_attend_tile", counting)
    x = torch.randn(1, 16384, 32)
    for start in (0.0, 3.0, 20.0):
        layer = layer_of(make("position", "fox.py:FoX", start=start), Entmax())
        with torch.no_grad():
            layer.position_state["b"].fill_(start)
            layer(x)
    assert attend_tile is not counting
    assert read[0.0] < read[3.0] < read[20.0]
    assert read[0.0] < 0.05 * read[20.0]


@torch.no_grad()
def test_scale_invariants_additive_part_is_a_kerple_logarithm():
    layer = layer_of(make("position", "scale_invariant.py:ScaleInvariant", multiply=False))
    plain = layer_of(NoPE())
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(1, 12, 32)
    i = torch.arange(12)
    kerple = -2 * torch.log1p((i[:, None] - i).clamp_min(0) / 10)
    expected = plain.scores(x) + kerple
    assert_near(layer.scores(x)[..., i[:, None] >= i], expected[..., i[:, None] >= i], 1e-6)


@pytest.mark.parametrize("normalizer", [Softmax(), Entmax()], ids=["softmax", "entmax"])
@torch.no_grad()
def test_pairs_of_heads_are_those_of_differential_attention(normalizer):
    norm, sizes = make("output_norm", "differential.py:Differential"), SIZES._replace(layer=2)
    layer = layer_of(ALiBi(), normalizer, sizes, norm)
    layer.output_norm_state["init"].fill_(0.8 - 0.6 * math.exp(-0.6))
    x = torch.randn(1, 6, 32)
    values = layer.value(x)[0].view(6, 4, 8).transpose(0, 1).double()
    learned = {name: t.double() for name, t in layer.output_norm_state.items()}
    rows = published.differential(layer.weights(x)[0].double(), values, learned, 2)
    assert_near(layer(x)[0], layer.output(torch.tensor(rows, dtype=torch.float32)), 1e-5)


@torch.no_grad()
def test_a_gate_reads_the_input():
    layer = layer_of(ALiBi(), output_norm=make("output_norm", "gated.py:Gated"))
    plain = layer_of(ALiBi())
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "output_norm" not in k})
    plain.output.weight.copy_(torch.eye(32))
    x = torch.randn(2, 6, 32)
    gate = (x @ layer.output_norm_state["w"].mT).sigmoid()
    assert_near(layer(x), layer.output(plain(x) * gate), 1e-6)
    some = torch.tensor([4, 1])
    assert_near(layer(x, select=some), layer(x)[:, some], 1e-6)


@torch.no_grad()
def test_alibi_on_half_of_the_heads_is_nape():
    x, words = torch.randn(2, 30, 32), torch.randint(10, (2, 20))
    for variant in ("linear", "exponential"):
        halves = Heads([ALiBi(variant), NoPE()], [2, 2])
        assert_near(layer_of(halves, Entmax())(x), layer_of(NAPE(variant), Entmax())(x), 0.0)
        both = (decoder_of(p, scaling=LogScaling()) for p in (halves, NAPE(variant)))
        assert_near(*(model(words) for model in both), 0.0)


@torch.no_grad()
def test_layers_have_the_encodings_of_the_pattern():
    model = decoder_of(Layers([RoPE(), RoPE(), RoPE(), NoPE()]), layers=4)
    layers = list(model.attention_layers().values())
    assert [layer.position.name for layer in layers] == ["rope", "rope", "rope", "nope"]
    x = torch.randn(1, 9, 32)
    for layer, position in zip(layers, (RoPE(), RoPE(), RoPE(), NoPE()), strict=True):
        alone = layer_of(position)
        alone.load_state_dict(layer.state_dict())
        assert_near(layer(x), alone(x), 0.0)


GROUPS = [
    Heads([ALiBi(), NoPE()], [1, 3]),
    Heads([RoPE(), ALiBi()], [2, 2]),
    *(Heads([encoding(key), NoPE()], [2, 2]) for key in ("fox", "t5", "fire", "cope", "pope")),
]


@pytest.mark.parametrize("position", GROUPS, ids=lambda p: p.groups_of[0].name)
@torch.no_grad()
def test_a_group_of_heads_is_its_encoding_alone(position):
    """Heads of a group score as those of a layer that has the group's encoding throughout."""
    layer, x = layer_of(position), torch.randn(1, 9, 32)
    start = 0
    for group, count in zip(position.groups_of, position.sizes, strict=True):
        sizes = SIZES._replace(heads=count, kv_heads=count)
        alone, rows = layer_of(group, sizes=sizes), slice(8 * start, 8 * (start + count))
        for name in ("query", "key"):
            getattr(alone, name).weight.copy_(getattr(layer, name).weight[rows])
        index = position.groups_of.index(group)
        for name, tensor in alone.position_state.items():
            tensor.copy_(layer.position_state[f"group{index}_{name}"])
        expected = alone.scores(x)
        assert_near(layer.scores(x)[:, start : start + count].exp(), expected.exp(), 1e-5)
        start += count


@torch.no_grad()
def test_a_looped_decoder_continues_what_it_has_read():
    model = Model(layers=2, d_model=32, heads=4, d_ff=16)
    loop = make("loop", "loops.py:PerTokens", tokens=8, inject=True)
    decoder = Decoder(model, Attention(), ALiBi(), 11, pad=10, loop=loop)
    randomize(decoder)
    words = torch.randint(10, (2, 23))
    whole = decoder(words)
    cache = decoder.make_cache(23)
    assert len(cache.layers) == 3 * 2
    parts = [decoder(part, cache=cache) for part in words.split(4, dim=1)]
    assert_near(torch.cat(parts, dim=1), whole, 1e-5)
    shorter = torch.cat([words[:, :7], torch.full((2, 16), 10)], dim=1)
    mixed = torch.cat([words[:1], shorter[1:]])
    assert_near(decoder(mixed)[1, :7], decoder(words[1:, :7])[0], 1e-5)
    assert_near(decoder(mixed)[:1], whole[:1], 1e-5)
    assert decoder.loops(mixed) == [3, 1]


@torch.no_grad()
def test_a_mixer_stands_in_the_place_of_attention():
    model = Model(layers=2, d_model=32, heads=4, d_ff=16)
    mixer = make("mixer", "lstm.py:LSTM")
    decoder = Decoder(model, Attention(), NoPE(), 11, pad=10, mixer=mixer)
    words = torch.randint(10, (2, 23))
    whole, cache = decoder(words), decoder.make_cache(23)
    parts = [decoder(part, cache=cache) for part in words.split(5, dim=1)]
    assert_near(torch.cat(parts, dim=1), whole, 1e-5)
    block, x = decoder.blocks[0], torch.randn(1, 4, 32)
    expected = block.attention.module(x)[0]
    assert_near(block.attention(x), expected, 0.0)


def test_ids_of_the_task_couple_digits_of_one_weight():
    task = make("task", "coupling.py:Addition")
    batch = task.encode(np.random.default_rng(0), np.array([3, 2]))
    ids = task.position_ids(batch, np.random.default_rng(0), training=False)
    read = [task.text(t) for t in batch.inputs[0]]
    assert len(read) == 1 + 7 + 1 + 4
    #                          bos a a a + b b b sep sum
    assert ids[0].tolist() == [0, 4, 3, 2, 0, 4, 3, 2, 0, 2, 3, 4, 5]
    assert ids[1, :11].tolist() == [0, 3, 2, 0, 3, 2, 0, 2, 3, 4, 0]
