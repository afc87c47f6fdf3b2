"""Choices that cannot work together are refused in one line that names both."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from oracles.registered import label, variants

from lcg.attention import Attention
from lcg.attention.backends import BACKENDS
from lcg.attention.functional import Bias, attend
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.normalizers.softmax import Softmax
from lcg.attention.scalings import AdaptiveScaling, HeadScaling, LogScaling
from lcg.config.schema import Model
from lcg.models.transformer import Decoder
from lcg.positional.base import Sizes
from lcg.positional.groups import NAPE
from lcg.positional.nope import NoPE
from lcg.positional.rotary import RoPE

CLASHES = {
    "nape, one head": (NAPE(), {"heads": 1}, ["nape", "heads"]),
    "nape, one key head": (NAPE(), {"heads": 4, "kv_heads": 1}, ["nape", "kv_heads=1"]),
    "nape, odd heads, shared": (
        NAPE(),
        {"heads": 6, "kv_heads": 3, "head_dim": 4},
        ["nape", "kv_heads=3"],
    ),
    "rope, odd head": (RoPE(), {"heads": 4, "head_dim": 5}, ["rope", "head_dim"]),
    "rope, odd part": (RoPE(fraction=0.5), {"heads": 4, "head_dim": 6}, ["fraction", "head_dim"]),
}


@pytest.mark.parametrize("clash", CLASHES)
def test_an_encoding_and_sizes_that_clash(clash):
    position, sizes, words = CLASHES[clash]
    with pytest.raises(ValueError) as error:
        Decoder(Model(d_model=16, **sizes), Attention(), position, 11)
    one_line(error, *words)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"d_model": 10, "heads": 4}, ["d_model=10", "heads=4"]),
        ({"heads": 4, "kv_heads": 3}, ["heads=4", "kv_heads=3"]),
        ({"heads": 2, "kv_heads": 4}, ["heads=2", "kv_heads=4"]),
    ],
)
def test_sizes_that_clash(sizes, words):
    with pytest.raises(ValueError) as error:
        Model(**sizes)
    one_line(error, *words)


@dataclass
class Elsewhere(Softmax):
    name: ClassVar[str] = "elsewhere"
    backends: ClassVar[tuple[str, ...]] = ("abacus", "slide_rule")


@pytest.mark.parametrize("normalizer", [*variants("normalizer"), Elsewhere()], ids=label)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_normalizer_and_a_backend_that_it_does_not_declare(normalizer, backend):
    """Refused by the config and by `attend`; accepted by both if declared."""
    q, bias = torch.randn(1, 2, 3, 4), Bias(torch.arange(3), torch.arange(3))
    learned = normalizer.learned(Sizes(2, 2, 4, 8))
    attempts = [lambda: Attention(normalizer, backend=backend)]
    if backend != "triton":  # needs a GPU
        attempts.append(lambda: attend(q, q, q, normalizer, bias, learned, backend))
    for attempt in attempts:
        if backend in normalizer.backends:
            attempt()
            continue
        with pytest.raises(ValueError) as error:
            attempt()
        one_line(error, f"normalizer={normalizer.name}", backend, *normalizer.backends)


def test_a_backend_that_is_not_there():
    with pytest.raises(ValueError) as error:
        Attention(backend="abacus")
    one_line(error, "backend=abacus", "auto", *BACKENDS)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdaptiveScaling(offset=0.0), ["adaptive", "offset"]),
        (lambda: HeadScaling(offset=0.0), ["head", "offset"]),
        (lambda: LogScaling(offset=-0.5), ["log", "offset"]),
        (lambda: AdaptiveScaling(gamma_range=-1.0), ["adaptive", "gamma_range"]),
        (lambda: AdaptiveScaling(init="unit", bias=False), ["init=unit", "bias"]),
    ],
)
def test_options_of_a_scaling_that_clash(make, words):
    with pytest.raises(ValueError) as error:
        make()
    one_line(error, *words)


def test_a_normalizer_may_refuse_sizes():
    @dataclass
    class Picky(Softmax):
        name: ClassVar[str] = "picky"

        def check(self, sizes):
            raise ValueError(f"picky: not with heads={sizes.heads}")

    with pytest.raises(ValueError, match="picky: not with heads=2"):
        MultiHeadAttention(Attention(Picky()), NAPE(), Sizes(2, 2, 4, 8))


def one_line(error, *words):
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


@dataclass
class Scalar(Softmax):
    name: ClassVar[str] = "scalar"

    def learned(self, sizes):
        return {"sink": torch.zeros(())}


def test_learned_tensors_of_a_normalizer_have_a_row_per_head():
    """A backend may treat some heads at a time."""
    with pytest.raises(ValueError) as error:
        MultiHeadAttention(Attention(Scalar()), NoPE(), Sizes(2, 2, 4, 8))
    one_line(error, "Scalar", "'sink'", "heads=2")
