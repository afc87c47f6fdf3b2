"""Small models of all three kinds with random parameters, and what their layers work on."""

import pytest
import torch
from oracles.registered import SIZES, VOCABULARY, randomize, small_decoder

from lcg.attention import Attention
from lcg.attention.scalings import NoScaling
from lcg.config.schema import Model
from lcg.models.transformer import Encoder, EncoderDecoder
from lcg.positional.groups import NAPE

PAD = VOCABULARY - 1


def small_model(kind, normalizer, position=None, sizes=SIZES[1]):
    """A model of two layers (an encoder–decoder: of one block each) in evaluation mode."""
    position = position or NAPE()
    if kind == "decoder":
        return small_decoder(normalizer, NoScaling(), position, sizes=sizes)
    config = Model(
        kind=kind,
        layers=1 if kind == "encoder_decoder" else 2,
        d_model=sizes.d_model,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        d_ff=12,
    )
    torch.manual_seed(0)
    make = Encoder if kind == "encoder" else EncoderDecoder
    model = make(config, Attention(normalizer, NoScaling()), position, VOCABULARY, PAD)
    randomize(model)
    return model.eval()


def small_reads(kind, batch=2, length=11, seed=0):
    """Return the arguments of such a model; the last row of a source is padded."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randint(PAD, (batch, length), generator=draw)
    if kind == "decoder":
        return (inputs,)
    source = torch.randint(PAD, (batch, length + 3), generator=draw)
    source[-1, -4:] = PAD
    return (source,) if kind == "encoder" else (inputs, source)


KINDS = ("decoder", "encoder", "encoder_decoder")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param
