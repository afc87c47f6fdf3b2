"""An encoding of a user's own, of every shape the seam allows, works through the whole model."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from oracles.registered import (
    SIZES,
    assert_near,
    label,
    labels,
    randomize,
    small_decoder,
    tokens,
    variants,
)
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.cache import KVCache
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import LogScaling, NoScaling
from lcg.positional.base import PositionEncoding
from lcg.positional.groups import NAPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi

LENGTH = 11


def random_ids(length, device=None, longest=500):
    """A sorted random subset of 0 … longest - 1 (2305.16843)."""
    return torch.randperm(longest, device=device)[:length].sort().values


@dataclass
class RandomRoPE(RoPE):
    name: ClassVar[str] = "random_rope"

    def positions(self, length, device=None):
        return random_ids(length, device)


@dataclass
class RandomALiBi(ALiBi):
    name: ClassVar[str] = "random_alibi"

    def positions(self, length, device=None):
        return random_ids(length, device, longest=40)


@dataclass
class Fire(PositionEncoding):
    """FIRE (2310.04418): b(i, j) = MLP_h(log(1 + c·(i - j)) / log(1 + c·max(L, i)))."""

    name: ClassVar[str] = "fire"
    relative: ClassVar[bool] = False  # its denominator knows the position of the query

    def learned(self, sizes):
        torch.manual_seed(3)
        return {
            "log_c": torch.tensor(-1.0),
            "threshold": torch.tensor(6.0),
            "inner": torch.randn(1, 8),
            "outer": torch.randn(8, sizes.heads),
        }

    def bias(self, tile, learned):
        i, j = tile.q_ids, tile.k_ids
        c, farthest = learned["log_c"].exp(), torch.maximum(learned["threshold"], i)
        ratio = torch.log1p(c * (i - j).clamp_min(0)) / torch.log1p(c * farthest)
        hidden = (ratio[..., None] @ learned["inner"]).relu()
        return (hidden @ learned["outer"]).permute(2, 0, 1)


@dataclass
class ReadsTheData(PositionEncoding):
    """A bias [b h q k] made of q, k and a state of queries, k shared between heads."""

    name: ClassVar[str] = "reads_the_data"
    relative: ClassVar[bool] = False

    def learned(self, sizes):
        torch.manual_seed(4)
        return {"w": torch.randn(sizes.d_model, sizes.heads)}

    def state(self, x, learned):
        return {"gate": (x @ learned["w"]).float().sigmoid().mT}

    def bias(self, tile, learned):
        keys = tile.k.repeat_interleave(tile.q.shape[1] // tile.k.shape[1], dim=1)
        return tile.q_state["gate"][..., None] * torch.tanh(tile.q @ keys.mT) * tile.k_ids / 4


@dataclass
class LearnedAbsolute(PositionEncoding):
    name: ClassVar[str] = "learned_absolute"
    relative: ClassVar[bool] = False

    longest: int = 64

    def learned_embedding(self, sizes):
        torch.manual_seed(5)
        return {"table": torch.randn(self.longest, sizes.d_model)}

    def embed(self, x, ids, learned):
        return x + learned["table"][ids].to(x.dtype)


OWN = [RandomRoPE(), RandomALiBi(), Fire(), ReadsTheData(), LearnedAbsolute()]
own = pytest.mark.parametrize("position", OWN, ids=label)


def read(model, words, positions, chunks):
    cache = KVCache(len(model.blocks), len(positions), positions)
    return torch.cat([model(part, cache=cache) for part in words.split(chunks, dim=1)], dim=1)


@pytest.mark.parametrize("row", sampled(OWN, variants("normalizer")), ids=labels)
@torch.no_grad()
def test_decoding_continues_the_input(row):
    """Whatever the chunks, one set of position ids, drawn once, serves a sequence."""
    position, normalizer = row
    model = small_decoder(normalizer, LogScaling(), position)
    words, ids = tokens(2, LENGTH), position.positions(LENGTH)
    whole = read(model, words, ids, LENGTH)
    for chunks in (1, 3, [6, 1, 1, 1, 2]):
        assert_near(read(model, words, ids, chunks), whole, 1e-5, f"chunks {chunks}")
    some = torch.tensor([9, 0, 4])
    cache = KVCache(2, LENGTH, ids)
    assert_near(model(words, select=some, cache=cache), whole[:, some], 1e-5, "select")


@own
@pytest.mark.parametrize("mixed", [False, True])
def test_every_learned_tensor_gets_a_gradient_and_every_word_matters(position, mixed):
    model = small_decoder(Softmax(), NoScaling(), position)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = model(tokens(2, LENGTH))
    out.float().square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    expected = {"fire": 2 * 4, "reads_the_data": 2, "learned_absolute": 1}
    states = [n for n, _ in model.named_parameters() if "position_state" in n]
    assert len(states) == expected.get(position.name, 0)


@pytest.mark.parametrize("position", [RandomRoPE(), RandomALiBi()], ids=label)
@torch.no_grad()
def test_random_positions_are_drawn_once_for_the_cache_and_reach_the_scores(position):
    model = small_decoder(Softmax(), LogScaling(), position)
    words = tokens(1, LENGTH)
    torch.manual_seed(0)
    cache = model.make_cache(LENGTH)
    drawn = cache.ids
    assert (drawn.diff() > 0).all() and len(drawn) == LENGTH
    first = torch.cat([model(part, cache=cache) for part in words.split(4, dim=1)], dim=1)
    assert cache.ids is drawn
    torch.manual_seed(0)
    assert_near(model(words), first, 1e-5)  # the same draw
    assert (model(words) - first).abs().max() > 1e-3  # another one


@torch.no_grad()
def test_greedy_decoding_with_random_positions_is_that_of_a_full_forward():
    position = RandomRoPE()
    model = small_decoder(Softmax(), NoScaling(), position)
    words = tokens(2, 5)
    torch.manual_seed(1)
    decoded = model.greedy(words, 6)
    torch.manual_seed(1)
    ids = position.positions(5 + 5)
    for _ in range(6):
        logits = read(model, words, ids, words.shape[1])
        words = torch.cat([words, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(decoded, words[:, 5:])


def test_a_bias_is_added_to_the_scores_and_never_scaled():
    """The weights are those of q·k·scaler/√d + bias, computed here from the layer's own parts."""
    position, sizes = Fire(), SIZES[0]
    layer = MultiHeadAttention(Attention(scaling=LogScaling()), position, sizes)
    randomize(layer)
    x, ids = torch.randn(1, 6, sizes.d_model), torch.arange(6)
    state = dict(layer.position_state.items())
    c = state["log_c"].exp()
    for h in range(sizes.heads):
        part = slice(4 * h, 4 * h + 4)
        q, k = layer.query(x)[0, :, part], layer.key(x)[0, :, part]
        for i in range(6):
            scaler = layer.scaling_state["s"][h] * torch.tensor(i + 2.0).log()
            scores = []
            for j in range(i + 1):
                inside = torch.log1p(c * (i - j))
                ratio = inside / torch.log1p(c * max(state["threshold"], i))
                bias = (ratio * state["inner"]).relu()[0] @ state["outer"][:, h]
                scores.append(scaler * (q[i] @ k[j]) / 2 + bias)
            expected = torch.stack(scores).softmax(0)
            assert_near(layer.weights(x, ids)[0, h, i, : i + 1], expected, 1e-5)


class LastHeadsOnly(NAPE):
    """Length scaling for the last head alone."""

    def scaled_heads(self, heads):
        return range(heads - 1, heads)


def test_an_encoding_says_which_heads_are_scaled():
    layer = MultiHeadAttention(Attention(scaling=LogScaling()), LastHeadsOnly(), SIZES[0])
    assert layer.scaling_state["s"].shape == (1,)


class TwiceTheSame(NAPE):
    def scaled_heads(self, heads):
        return [0, 0]


def test_scaled_heads_that_are_none_of_a_layer_are_refused():
    with pytest.raises(ValueError, match="scaled_heads") as error:
        MultiHeadAttention(Attention(scaling=LogScaling()), TwiceTheSame(), SIZES[0])
    assert "\n" not in str(error.value)


# ---- what encodings declare

BY_ORDER = {"nope", "window", "hard_alibi", "fox", "cable", "cope"}
"""They read no ids."""
RELATIVE = [p for p in [*variants("position"), *OWN] if p.relative]


@pytest.mark.parametrize("row", sampled(RELATIVE, variants("normalizer")), ids=labels)
@torch.no_grad()
def test_relative_encodings_do_not_change_when_all_positions_move(row):
    position, normalizer = row
    layer = MultiHeadAttention(Attention(normalizer, LogScaling()), position, SIZES[1])
    randomize(layer)
    torch.manual_seed(0)
    x, ids = torch.randn(2, 7, SIZES[1].d_model), torch.tensor([0, 1, 2, 5, 6, 9, 30])
    still = layer(x, ids)
    for shift in (1, 1000):
        assert_near(layer(x, ids + shift), still, 1e-4, f"shift {shift}")
    if position.name not in BY_ORDER:
        stretched = layer(x, 3 * ids)
        assert (stretched - still).abs().max() > 1e-3, "positions make no difference"


@torch.no_grad()
def test_an_absolute_encoding_does_change():
    model = small_decoder(Softmax(), NoScaling(), LearnedAbsolute())
    words = tokens(1, 5)
    assert (
        read(model, words, torch.arange(5) + 3, 5) - read(model, words, torch.arange(5), 5)
    ).abs().max() > 1e-2
