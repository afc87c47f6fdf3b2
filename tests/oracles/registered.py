"""Every registered choice with the options worth testing, and small models made of them.

A new normalizer, scaling, encoding or output norm is picked up here by being registered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import torch
from oracles.attention import Choices, Chosen
from torch import Tensor, nn

from lcg.attention import Attention
from lcg.config.schema import Model
from lcg.models.transformer import Decoder
from lcg.positional.base import Sizes
from lcg.registry import available

KINDS = ("normalizer", "scaling", "position", "output_norm")
VOCABULARY = 11

# First options to test where those are not the defaults: 32 keys are more than a test has.
FIRST: dict[str, dict[str, Any]] = {
    "topk": {"k": 3},
    "log_ratio": {"train_length": 5},
    "qwen_log": {"train_length": 3},
    "llama4": {"floor": 3},
    "info": {"train_length": 5, "head_dim": 4},
    "t5": {"buckets": 8, "farthest": 10},
    "fire": {"train_length": 5, "hidden": 6},
    "sandwich": {"width": 6, "base": 100.0},
    "cope": {"most": 3},
    "window": {"size": 3},
}

# Options to test besides.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "entmax": [{"alpha": 1.0}, {"alpha": 1.2}, {"alpha": 2.0}, {"alpha": 3.0}],
    "topk": [{"k": 1}, {"k": 32}],
    "log": [{"offset": 0.0, "bias": True}],
    "adaptive": [
        {"init": "unit"},
        {"bias": False, "delta": 0.0, "gamma_range": 1.0, "offset": 0.5},
    ],
    "head": [{"delta": 0.5, "offset": 2.0}],
    "alibi": [{"variant": "interleaved"}],
    "nape": [{"variant": "exponential"}],
    "rope": [
        {"base": 100.0, "fraction": 0.5},
        {"keep": 0.5},
        {"extension": "yarn", "scale": 4.0, "train_length": 9, "base": 10.0},
        {"extension": "dynamic_ntk", "train_length": 4},
    ],
    "pope": [{"init": "uniform", "base": 50.0}],
    "kerple": [{"variant": "power"}],
    "fox": [{"gates": "bias", "init": "log_spaced"}],
    "sinusoidal": [{"base": 100.0, "scale": 0.3}],
    "rms": [{"gated": True, "eps": 0.01}],
    "relu_n": [{"power": 2.0, "gamma": 0.5}],
    "gated": [{"per": "head"}],
}

# Odd and even heads, shared key heads, heads that are together wider or narrower than the model.
SIZES = [
    Sizes(heads=4, kv_heads=4, head_dim=4, d_model=16),
    Sizes(heads=4, kv_heads=2, head_dim=8, d_model=10),
    Sizes(heads=3, kv_heads=3, head_dim=4, d_model=9),
    Sizes(heads=6, kv_heads=2, head_dim=4, d_model=16),
]


COMPOSED = ("heads", "layers", "randomised", "abacus", "dape")
"""Made of other encodings: tests/positional/test_wrappers.py and tests/extension test them."""


def single(kind: str) -> dict[str, type]:
    """Every registered class of a kind that is not made of others."""
    return {name: cls for name, cls in available(kind).items() if name not in COMPOSED}


def variants(kind: str) -> list[Any]:
    """Instances of every registered class of a kind, each with its first and its other options."""
    found = []
    for name, cls in single(kind).items():
        found += [cls(**options) for options in [FIRST.get(name, {}), *OPTIONS.get(name, [])]]
    return found


def fitting(output_norm: Any, sizes: Sizes) -> Sizes:
    """The sizes, or the first of all where an output norm refuses these."""
    try:
        output_norm.check(sizes)
    except ValueError:
        return SIZES[0]
    return sizes


def crosses(position: Any) -> bool:
    """True for an encoding that full and cross-attention know."""
    return not (position.causal_only or position.has("state") or position.has("window"))


def label(choice: Any) -> str:
    """A test id: the name, and the options that are not the defaults."""
    if not dataclasses.is_dataclass(choice):
        return f"h{choice.heads}g{choice.kv_heads}" if isinstance(choice, Sizes) else str(choice)
    changed = [
        f"{f.name}={getattr(choice, f.name)}"
        for f in dataclasses.fields(choice)
        if getattr(choice, f.name) != f.default
    ]
    return "-".join([choice.name, *changed])


def labels(row: Iterable[Any]) -> str:
    return "|".join(label(choice) for choice in row)


def pairwise(*factors: list[Any]) -> list[tuple[Any, ...]]:
    """Few rows of one value per factor, in which every two values of two factors meet."""
    spans = [range(len(values)) for values in factors]
    places = list(combinations(range(len(factors)), 2))
    missing = {(a, i, b, j): None for a, b in places for i in spans[a] for j in spans[b]}
    rows = []
    while missing:
        a, i, b, j = next(iter(missing))
        row = {a: i, b: j}
        for other in range(len(factors)):
            if other not in row:
                row[other] = max(spans[other], key=lambda v: _new(missing, row, other, v))
        for a, b in places:
            missing.pop((a, row[a], b, row[b]), None)
        rows.append(tuple(factors[place][row[place]] for place in range(len(factors))))
    return rows


def _new(missing: dict, row: dict[int, int], place: int, value: int) -> int:
    """Count the missing pairs that this value would make with the row so far."""
    return sum(
        ((place, value, other, at) if place < other else (other, at, place, value)) in missing
        for other, at in row.items()
    )


def choices(attention: Attention, position: Any, sizes: Sizes) -> Choices:
    """The same for the oracle, which knows names and options only."""
    parts = (attention.normalizer, attention.scaling, position, attention.output_norm)
    chosen = [Chosen(part.name, dataclasses.asdict(part)) for part in parts]
    return Choices(*chosen, sizes.heads, sizes.kv_heads)


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Parameters at which every formula shows: none is left at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "embedding.weight":
                parameter.copy_(noise)
            elif parameter.dim() == 2 and "_state" not in name:
                parameter.copy_(1.2 * noise / parameter.shape[1] ** 0.5)
            else:
                parameter.add_(0.3 * noise)


def small_decoder(
    normalizer: Any,
    scaling: Any,
    position: Any,
    *,
    sizes: Sizes = SIZES[1],
    layers: int = 2,
    block: str = "prenorm",
    **parts: Any,
) -> Decoder:
    """A decoder with random parameters, in evaluation mode."""
    model = Model(
        block=block,
        layers=layers,
        d_model=sizes.d_model,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        d_ff=12,
    )
    torch.manual_seed(0)
    decoder = Decoder(model, Attention(normalizer, scaling, **parts), position, VOCABULARY)
    randomize(decoder)
    return decoder.eval()


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (batch, length), generator=generator)


def assert_near(
    actual: Tensor, expected: Tensor, tolerance: float, what: str = "", at_least: float = 1e-3
) -> None:
    """The largest difference is within the tolerance, as a share of the largest expected value.

    That value counts as `at_least`: what should cancel to nothing cancels to rounding errors.
    """
    assert actual.shape == expected.shape, f"{what}: {actual.shape} for {expected.shape}"
    if actual.numel() == 0:
        return
    expected, actual = expected.detach().double(), actual.detach().double()
    scale = max(expected.abs().max().item(), at_least)
    difference = (actual - expected).abs().max().item() / scale
    assert difference <= tolerance, f"{what}: differs by {difference:.2g} of the largest value"
