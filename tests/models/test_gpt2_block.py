"""model.block=gpt2 against the logits of Hugging Face's GPT-2 with the same weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from oracles import gpt2 as golden

from lcg.attention import Attention
from lcg.config.compatibility import parameter_count
from lcg.config.schema import Model
from lcg.models.transformer import Decoder, EncoderDecoder
from lcg.positional.base import PositionEncoding
from lcg.positional.nope import NoPE

SIZES = {"layers": golden.LAYERS, "d_model": golden.WIDTH, "heads": golden.HEADS}
MODEL = Model(block="gpt2", d_ff=golden.HIDDEN, **SIZES)


@dataclass
class Learned(PositionEncoding):
    """A row of a table for each position."""

    name: ClassVar[str] = "table"
    relative: ClassVar[bool] = False

    def learned_embedding(self, sizes):
        return {"rows": torch.zeros(golden.ROOM, sizes.d_model)}

    def embed(self, x, ids, learned):
        return x + learned["rows"][ids]


POSITIONS = {"none": NoPE(), "learned": Learned()}


def theirs_as_ours(positions: bool) -> dict[str, torch.Tensor]:
    """The weights of the golden model in the order of its parameters, under our names: their
    matrices are transposed, and of queries, keys and values they have one."""
    width, hidden, state, numbers = golden.WIDTH, golden.HIDDEN, {}, iter(range(1000))

    def drawn(*shape):
        return golden.weight(next(numbers), shape)

    state["embedding.weight"] = state["head.weight"] = drawn(golden.VOCABULARY, width)
    rows = drawn(golden.ROOM, width)
    if positions:
        state["position_state.rows"] = rows
    for layer in range(golden.LAYERS):
        block = f"blocks.{layer}"
        for norm, projections in (
            ("attention_norm", {"attention": (width, 3 * width), "attention.output": (width,) * 2}),
            ("mlp_norm", {"mlp.input": (width, hidden), "mlp.output": (hidden, width)}),
        ):
            state |= {f"{block}.{norm}.{name}": drawn(width) for name in ("weight", "bias")}
            for name, shape in projections.items():
                matrix, bias = drawn(*shape).T, drawn(shape[1])
                names, parts = [f"{block}.{name}"], 1
                if name == "attention":
                    names, parts = (
                        [f"{block}.{name}.{each}" for each in ("query", "key", "value")],
                        3,
                    )
                for each, own, shift in zip(
                    names, matrix.chunk(parts), bias.chunk(parts), strict=True
                ):
                    state |= {f"{each}.weight": own, f"{each}.bias": shift}
    state |= {f"norm.{name}": drawn(width) for name in ("weight", "bias")}
    return state


@pytest.mark.parametrize("position", POSITIONS)
def test_logits_are_those_of_hugging_face(position):
    model = Decoder(MODEL, Attention(), POSITIONS[position], golden.VOCABULARY).double()
    model.load_state_dict(theirs_as_ours(position == "learned"))
    file = Path(golden.__file__).with_name("gpt2_logits.json")
    expected = torch.tensor(json.loads(file.read_text())[position])
    torch.testing.assert_close(model(torch.tensor(golden.TOKENS)), expected, rtol=0, atol=2e-6)


def test_it_starts_as_gpt2_does():
    """Normal with 0.02, less for what writes to the residual stream; vectors 0 and 1; one matrix
    for embedding and head."""
    torch.manual_seed(0)
    model = Decoder(
        Model(block="gpt2", layers=8, d_model=256, heads=4, d_ff=1024), Attention(), NoPE(), 500
    )
    assert model.head.weight is model.embedding.weight
    block = model.blocks[3]
    for module, std in (
        (model.embedding, 0.02),
        (block.attention.query, 0.02),
        (block.mlp.input, 0.02),
        (block.attention.output, 0.005),
        (block.mlp.output, 0.005),
    ):
        assert module.weight.std().item() == pytest.approx(std, rel=0.02)
    assert not any(
        m.bias.any() for m in model.modules() if hasattr(m, "bias") and m.bias is not None
    )
    assert (block.mlp_norm.weight == 1).all()


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_its_parameters_are_counted(kind):
    sizes = {"layers": 3, "d_model": 24, "heads": 4, "kv_heads": 2, "d_ff": 40, "head_dim": 5}
    model = Model(block="gpt2", kind=kind, **sizes)
    if kind == "encoder_decoder":
        made = EncoderDecoder(model, Attention(), NoPE(), 17, pad=3)
    else:
        made = Decoder(model, Attention(), NoPE(), 17)
    assert parameter_count(model, 17) == sum(p.numel() for p in made.parameters())
