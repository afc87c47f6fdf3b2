"""Encoder and encoder–decoder: their formulas, padding, pruned queries, greedy decoding."""

import pytest
import torch
from oracles import decoder as oracle
from oracles.registered import (
    SIZES,
    VOCABULARY,
    assert_near,
    choices,
    crosses,
    labels,
    pairwise,
    randomize,
    tokens,
    variants,
)
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import NoScaling
from lcg.config.compatibility import cross_encoding
from lcg.config.schema import Model
from lcg.models.transformer import Encoder, EncoderDecoder
from lcg.positional.groups import NAPE

CLOSE = 5e-5  # as for the decoder: float32 through several layers
PAD = VOCABULARY  # a token beside those that `tokens` draws
NORMALIZERS = [n for n in variants("normalizer") if not n.causal_only]
POSITIONS = [p for p in variants("position") if p.ordered and crosses(p)]
FACTORS = [
    *(NORMALIZERS, variants("scaling"), POSITIONS),
    *(["none", "same"], ["prenorm", "gemma2", "gpt2"], SIZES[:2]),
]
ROW = (Softmax(), NoScaling(), NAPE(), "same", "prenorm", SIZES[0])
CLASSES = {"encoder": Encoder, "encoder_decoder": EncoderDecoder}

rows = pytest.mark.parametrize(
    "row", sampled(*FACTORS, whole=pairwise, seed="encoders"), ids=labels
)
some_rows = pytest.mark.parametrize("row", sampled(*FACTORS, whole=pairwise, one_in=3), ids=labels)


def small(kind, row):
    """A model with random parameters, in evaluation mode, and its config and choices."""
    normalizer, scaling, position, cross, block, sizes = row
    model = Model(
        kind=kind,
        block=block,
        layers=2,
        encoder_layers=1 if kind == "encoder_decoder" else None,
        cross_position=cross,
        d_model=sizes.d_model,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        d_ff=12,
    )
    attention = Attention(normalizer, scaling)
    torch.manual_seed(0)
    made = CLASSES[kind](model, attention, position, VOCABULARY + 1, PAD)
    randomize(made)
    chosen = choices(attention, position, sizes)
    crossed = choices(attention, cross_encoding(model, position), sizes)
    return made.eval().requires_grad_(False), chosen, crossed


def padded(words, count):
    return torch.cat([words, torch.full((len(words), count), PAD)], dim=1)


@rows
def test_an_encoder_is_its_formulas(row):
    model, chosen, _ = small("encoder", row)
    words = tokens(1, 6)
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    expected = oracle.encoder(words[0].tolist(), state, chosen, 2, row[4])
    assert_near(model(words)[0], expected, CLOSE)
    assert_near(model(padded(words, 3))[0, :6], expected, CLOSE, "padded")


@rows
def test_an_encoder_decoder_is_its_formulas(row):
    model, chosen, crossed = small("encoder_decoder", row)
    words, source = tokens(1, 4), tokens(1, 7, seed=1)
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    texts = words[0].tolist(), source[0].tolist()
    expected = oracle.encoder_decoder(*texts, state, chosen, crossed, (1, 2), row[4])
    assert_near(model(words, source)[0], expected, CLOSE)
    assert_near(model(words, padded(source, 3))[0], expected, CLOSE, "padded source")
    assert_near(model(padded(words, 2), source)[0, :4], expected, CLOSE, "padded target")


@some_rows
def test_rows_of_a_batch_are_as_if_alone(row):
    """Sources of unequal length, and one that is all of the batch's width."""
    sources = [tokens(1, n, seed=n) for n in (3, 8, 5)]
    batch = torch.cat([padded(one, 8 - one.shape[1]) for one in sources])
    targets = tokens(3, 4)
    model, *_ = small("encoder_decoder", row)
    whole = model(targets, batch)
    for i, one in enumerate(sources):
        assert_near(whole[i : i + 1], model(targets[i : i + 1], one), CLOSE, f"row {i}")
    model, *_ = small("encoder", row)
    whole = model(batch)
    for i, one in enumerate(sources):
        assert_near(whole[i : i + 1, : one.shape[1]], model(one), CLOSE, f"row {i}")


@some_rows
def test_pruned_queries_change_nothing(row):
    words, source, select = tokens(2, 6), padded(tokens(2, 5, seed=1), 2), torch.tensor([4, 1])
    model, *_ = small("encoder", row)
    assert_near(model(words, select=select), model(words)[:, select], CLOSE)
    model, *_ = small("encoder_decoder", row)
    assert_near(model(words, source, select=select), model(words, source)[:, select], CLOSE)


@some_rows
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_prefill_and_decoding_are_the_full_pass(row, chunk):
    model, *_ = small("encoder_decoder", row)
    words, source = tokens(2, 7), padded(tokens(2, 5, seed=1), 2)
    source[1] = tokens(1, 7, seed=2)
    whole = model(words, source)
    memory, cache = model.encode(source), model.make_cache(7)
    parts = [model.decode(part, memory, cache=cache) for part in words.split(chunk, dim=1)]
    assert_near(torch.cat(parts, dim=1), whole, CLOSE)
    cache = model.make_cache(7)
    model.decode(words[:, :4], memory, cache=cache)
    later = model.decode(words[:, 4:], memory, torch.tensor([2, 0]), cache)
    assert_near(later, whole[:, [6, 4]], CLOSE, "select behind a cache")


@some_rows
def test_greedy_is_the_teacher_forced_argmax(row):
    """Each token of its output is the best one of the full pass over those before it."""
    model, *_ = small("encoder_decoder", row)
    source = padded(tokens(2, 5, seed=1), 2)
    words, written = tokens(2, 1), []
    written = model.greedy(words, source, count=6)
    logits = model(torch.cat([words, written[:, :-1].clamp_min(0)], dim=1), source)
    assert torch.equal(logits.argmax(dim=-1), written)


def test_greedy_encodes_the_source_once_and_marks_logits_that_are_not_finite():
    model, *_ = small("encoder_decoder", ROW)
    calls, made = [], []
    model.source_blocks[0].register_forward_hook(lambda *words: calls.append(1))
    model.blocks[1].cross.value.register_forward_hook(lambda *words: made.append(1))
    model.greedy(tokens(2, 1), tokens(2, 4), count=5)
    assert len(calls) == len(made) == 1
    model.norm.weight[0] = torch.nan
    assert (model.greedy(tokens(2, 1), tokens(2, 4), count=3) == -1).all()


def test_without_a_causal_mask_an_encoder_sees_what_comes_after():
    model, *_ = small("encoder", ROW)
    words = tokens(1, 6)
    other = words.clone()
    other[0, -1] = (other[0, -1] + 1) % VOCABULARY
    assert (model(words)[0, 0] - model(other)[0, 0]).abs().max() > 1e-4


def test_each_side_has_its_own_tensors_of_an_encoding_that_learns():
    from dataclasses import dataclass
    from typing import ClassVar

    from lcg.positional.base import PositionEncoding

    @dataclass
    class Table(PositionEncoding):
        """A learned vector per position."""

        name: ClassVar[str] = "table"
        relative: ClassVar[bool] = False

        def learned_embedding(self, sizes):
            return {"table": torch.randn(16, sizes.d_model)}

        def embed(self, x, positions, learned):
            return x + learned["table"][positions]

    row = (*ROW[:2], Table(), *ROW[3:])
    model, *_ = small("encoder_decoder", row)
    names = [name for name, _ in model.named_parameters() if "table" in name]
    assert names == ["source_position_state.table", "position_state.table"]
    before = model(tokens(1, 3), tokens(1, 4))
    model.source_position_state["table"][3] += 1
    after = model(tokens(1, 3), tokens(1, 4))
    assert (after - before).abs().max() > 1e-4
