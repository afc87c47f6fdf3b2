"""Models made without memory, as large ones are, and filled afterwards: the same model."""

import copy

import pytest
import torch
from oracles.registered import VOCABULARY, labels, randomize, tokens
from sampling import sampled

from lcg.attention import Attention
from lcg.attention.normalizers.entmax import LearnedEntmax
from lcg.attention.scalings import AdaptiveScaling
from lcg.config.schema import Model
from lcg.models.transformer import KINDS
from lcg.positional.absolute import Sinusoidal
from lcg.positional.groups import NAPE
from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi


def make(kind, position):
    sizes = {"d_model": 12, "heads": 4, "head_dim": 4, "d_ff": 8}
    model = Model(kind=kind, layers=2, cross_position="same", **sizes)
    attention = Attention(LearnedEntmax(), AdaptiveScaling())
    return KINDS[kind](model, attention, position, VOCABULARY, VOCABULARY - 1).eval()


def emptied(model):
    return model.to_empty(device="cpu")


WAYS = {
    "to_empty": lambda model, state: emptied(model).load_state_dict(state),
    "to_empty, assign": lambda model, state: emptied(model).load_state_dict(state, assign=True),
    "assign": lambda model, state: model.load_state_dict(state, assign=True),
    "assign, bfloat16 and back": lambda model, state: (
        model.load_state_dict(state, assign=True),
        model.to(torch.bfloat16).to(torch.float32).load_state_dict(state),
    ),
}


@pytest.mark.parametrize(
    "row", sampled([ALiBi(), NAPE(), RoPE(), Sinusoidal()], KINDS, seed="meta"), ids=labels
)
@torch.no_grad()
def test_a_model_made_on_the_meta_device(row):
    position, kind = row
    reads = [tokens(2, 9, seed) for seed in range(2 if kind == "encoder_decoder" else 1)]
    model = make(kind, position)
    randomize(model)
    expected, state = model(*reads), model.state_dict()
    assert not any("slopes" in name for name in state)
    for way, fill in WAYS.items():
        with torch.device("meta"):
            empty = make(kind, position)
        for other in (copy.deepcopy(empty), empty):
            fill(other, {name: tensor.clone() for name, tensor in state.items()})
            assert torch.equal(other(*reads), expected), way
            assert torch.equal(copy.deepcopy(other)(*reads), expected), way
    with torch.device("meta"):
        inside = emptied(make(kind, position))
    inside.load_state_dict(state)
    assert torch.equal(inside(*reads), expected)
    gone = model.to("meta")  # and back
    assert torch.equal(WAYS["to_empty"](gone, state) and gone(*reads), expected)
