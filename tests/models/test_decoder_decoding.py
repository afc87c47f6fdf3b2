"""Reading a sequence at once, in pieces, in part or with padding gives the same logits."""

import pytest
import torch
from oracles.registered import assert_near, labels, small_decoder, tokens, variants
from sampling import sampled

from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import AdaptiveScaling, NoScaling
from lcg.positional.nope import NoPE

LENGTH = 11
TOLERANCE = 2e-5  # other shapes of the same products round otherwise; two layers

KINDS = map(variants, ("normalizer", "scaling", "position"))
combinations = pytest.mark.parametrize("row", sampled(*KINDS, seed="decoding"), ids=labels)


@combinations
@torch.no_grad()
def test_prefill_and_decoding_are_the_full_forward(row):
    model, words = small_decoder(*row), tokens(2, LENGTH)
    whole = model(words)
    for chunks in (1, 3, [5, 1, 1, 4]):
        cache = model.make_cache(LENGTH)
        parts = [model(part, cache=cache) for part in words.split(chunks, dim=1)]
        assert_near(torch.cat(parts, dim=1), whole, TOLERANCE, f"chunks {chunks}")
        assert cache.length == LENGTH


@combinations
@torch.no_grad()
def test_selected_positions_are_rows_of_the_full_forward(row):
    model, words = small_decoder(*row), tokens(2, LENGTH)
    whole = model(words)
    for some in ([LENGTH - 1], [0], [2, 3, 7], [9, 1, 1, 4], list(range(LENGTH))):
        select = torch.tensor(some)
        assert_near(model(words, select=select), whole[:, some], TOLERANCE, f"select {some}")
    cache = model.make_cache(LENGTH)
    model(words[:, :4], cache=cache)
    later = model(words[:, 4:], select=torch.tensor([6, 0]), cache=cache)
    assert_near(later, whole[:, [10, 4]], TOLERANCE, "select behind a cache")


@combinations
@torch.no_grad()
def test_padding_on_the_right_never_reaches_real_positions(row):
    model, words = small_decoder(*row), tokens(3, LENGTH)
    whole = model(words)
    for pad in (0, 10):
        padded = torch.cat([words, torch.full((3, 5), pad)], dim=1)
        padded[1, 4:] = pad  # a shorter row of the same batch
        logits = model(padded)
        assert_near(logits[0::2, :LENGTH], whole[0::2], TOLERANCE)
        assert_near(logits[1, :4], whole[1, :4], TOLERANCE)


@combinations
@torch.no_grad()
def test_greedy_decoding_is_the_argmax_of_repeated_full_forwards(row):
    model, words = small_decoder(*row), tokens(4, 4)
    decoded = model.greedy(words, 6)
    for _ in range(6):
        words = torch.cat([words, model(words)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(decoded, words[:, 4:])
    assert len(decoded.unique()) > 1, "a model that repeats one token shows nothing"


@pytest.mark.parametrize("row", sampled(variants("normalizer"), variants("position")), ids=labels)
@torch.no_grad()
def test_lengths_far_beyond_any_training_length(row):
    """Nothing depends on a longest length; what was said about the first tokens stands."""
    normalizer, position = row
    model, words = small_decoder(normalizer, AdaptiveScaling(), position), tokens(1, 700)
    logits = model(words)
    assert logits.isfinite().all()
    assert_near(logits[:, :LENGTH], model(words[:, :LENGTH]), TOLERANCE)


def test_a_cache_refuses_more_tokens_than_it_was_made_for():
    model = small_decoder(Softmax(), NoScaling(), NoPE())
    cache = model.make_cache(5)
    model(tokens(1, 4), cache=cache)
    with pytest.raises(ValueError, match="made for 5 tokens and is asked for 6"):
        model(tokens(1, 2), cache=cache)
