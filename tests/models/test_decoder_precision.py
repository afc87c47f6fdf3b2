"""bfloat16, as autocast and as the type of every weight."""

import pytest
import torch
from oracles.registered import SIZES, assert_near, labels, pairwise, small_decoder, tokens, variants
from sampling import sampled

from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import NoScaling
from lcg.positional.groups import NAPE
from lcg.positional.slopes import ALiBi

KINDS = map(variants, ("normalizer", "scaling", "position"))
rows = pytest.mark.parametrize("row", sampled(*KINDS, whole=pairwise, seed="precision"), ids=labels)


@rows
def test_autocast_gives_finite_float32_logits_and_gradients(row):
    model, words = small_decoder(*row), tokens(2, 9)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(words)
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@rows
def test_bfloat16_weights_give_finite_logits_and_gradients(row):
    model, words = small_decoder(*row).to(torch.bfloat16), tokens(2, 9)
    logits = model(words)
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert model.greedy(words, 3).shape == (2, 3)


@pytest.mark.parametrize("position", variants("position"), ids=lambda position: position.name)
@torch.no_grad()
def test_bfloat16_is_near_float32(position):
    """Softmax is smooth: 8 bits through two layers leave a few percent."""
    model, words = small_decoder(Softmax(), NoScaling(), position), tokens(2, 9)
    exact = model(words)
    with torch.autocast("cpu", torch.bfloat16):
        assert_near(model(words), exact, 0.1)
    assert_near(model.to(torch.bfloat16)(words), exact, 0.1)


@pytest.mark.parametrize("position", [ALiBi(), NAPE(), NAPE("exponential")])
def test_slopes_stay_exact_when_weights_become_bfloat16(position):
    model = small_decoder(Softmax(), NoScaling(), position, sizes=SIZES[3]).to(torch.bfloat16)
    for block in model.blocks:
        assert torch.equal(block.attention.slopes, position.slopes(SIZES[3].heads))


@torch.no_grad()
def test_position_bias_is_exact_far_away_in_bfloat16():
    """Distances beyond 256 are no bfloat16 numbers: neighbours must still be told apart."""
    model = small_decoder(Softmax(), NoScaling(), ALiBi()).to(torch.bfloat16)
    attention = model.blocks[0].attention
    torch.nn.init.zeros_(attention.query.weight)
    x = torch.randn(1, 600, model.blocks[0].attention.sizes.d_model, dtype=torch.bfloat16)
    weights = attention.weights(x, torch.arange(600), torch.tensor([599]))[0, -1, 0]
    ratio = weights[1:] / weights[:-1]
    slope = ALiBi().slopes(attention.sizes.heads)[-1]
    assert_near(ratio, slope.exp().expand(599), 1e-4)
