"""Properties of an attention and a position encoding inside a model, whatever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcg.attention import Attention
from lcg.attention.backends import blockwise, reference, triton, usable
from lcg.attention.hooks import learned_tensors
from lcg.attention.layer import MultiHeadAttention, causal_attention
from lcg.attention.mixers import AttentionMixer, FixedLoop, Loop, Mixer
from lcg.checks.properties import DoesNotApply, Properties, expect
from lcg.config.schema import Model
from lcg.models.transformer import Decoder, Encoder
from lcg.positional.base import PositionEncoding, Sizes

VOCABULARY, PAD = 11, 10
LENGTHS = (1, 2, 3, 5, 8)
LONG_LENGTHS = (3, 130, 520)
"""Lengths of one tile, of two tiles of queries, and long enough for a search for candidates."""
NEAR = 1e-4
PROPERTIES = Properties()
SIZES = (
    Sizes(1, 1, 2, 2),
    Sizes(2, 2, 4, 8),
    Sizes(3, 3, 4, 12),
    Sizes(4, 2, 4, 16),
    Sizes(8, 8, 2, 16),
)


@dataclass
class Parts:
    """The choices of a model; `owner` is the one of them that is being checked."""

    owner: Any
    attention: Attention
    position: PositionEncoding
    mixer: Mixer = field(default_factory=AttentionMixer)
    loop: Loop = field(default_factory=FixedLoop)

    def sizes(self) -> list[Sizes]:
        """The sizes that every choice accepts, from the smallest up."""
        accepted = [sizes for sizes in SIZES if self._accepts(sizes)]
        expect(accepted, "check(sizes) refuses all sizes that are tried")
        return accepted

    def _accepts(self, sizes: Sizes) -> bool:
        try:
            self.attention.weighting.check(sizes)
            self.attention.output_norm.check(sizes)
            self.position.check(sizes)
        except ValueError:
            return False
        return True

    def layer(self, sizes: Sizes) -> MultiHeadAttention:
        """A layer of causal attention, the same each time."""
        return stirred(seeded(lambda: causal_attention(self.attention, self.position, sizes)))

    def model(self, sizes: Sizes, kind: type = Decoder, start: bool = False) -> Any:
        """A model of two layers, the same each time; start: as it is before training."""
        shape = {"heads": sizes.heads, "kv_heads": sizes.kv_heads, "head_dim": sizes.head_dim}
        options = Model(layers=2, d_model=sizes.d_model, d_ff=8, allow_no_position=True, **shape)
        choices, depth = (self.attention, self.position), (self.mixer, self.loop)
        model = seeded(lambda: kind(options, *choices, VOCABULARY, PAD, *depth))
        return (model if start else stirred(model)).eval()


class Case(NamedTuple):
    """The sizes of one try."""

    length: int
    batch: int
    sizes: Sizes

    def __str__(self) -> str:
        return f"length {self.length}, batch size {self.batch}, heads {self.sizes.heads}"

    def tokens(self) -> Tensor:
        """Random tokens [b t], none of them padding."""
        draw = torch.Generator().manual_seed(self.length)
        return torch.randint(0, PAD, (self.batch, self.length), generator=draw)

    def states(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Random inputs of a layer [b t d_model]."""
        return normal(self.batch, self.length, self.sizes.d_model, seed=self.length, dtype=dtype)


def seeded(make: Callable[[], Any]) -> Any:
    """Call `make` with torch's random numbers started anew."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed formats a stack trace
        return make()


def stirred(module: torch.nn.Module) -> Any:
    """The module, its learned tensors moved a little, so that none is zero by its start alone."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in module.parameters():  # not in place: a class may hold on to its tensors
            if tensor.requires_grad:
                noise = 0.1 * torch.randn(tensor.shape, generator=draw)
                tensor.data = tensor + noise.to(tensor.dtype)
    return module


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def learned_of(
    owner: Any, *sizes: Any, dtype: torch.dtype = torch.float32, method: str = "learned"
) -> Any:
    """The tensors that a choice learns, the same each time, moved a little from their start."""
    tensors = seeded(lambda: getattr(owner, method)(*sizes))
    return stirred(learned_tensors(owner, tensors, method).to(dtype))


def each_case(parts: Parts, lengths: tuple[int, ...] = LENGTHS, batch: int = 2) -> Iterator[Case]:
    """Cases from the smallest up."""
    for length in lengths:
        for sizes in parts.sizes():
            yield Case(length, batch, sizes)


def short_cases(parts: Parts) -> Iterator[Case]:
    """Cases small enough for finite differences."""
    return each_case(parts, (1, 2, 5))


def expect_near(found: Tensor, expected: Tensor, what: str, near: float = NEAR) -> None:
    """Raise Fails unless tensors are equal up to the rounding of their largest entry."""
    if not found.numel():
        return
    error = (found - expected).abs().nan_to_num(nan=float("inf"))
    worst = float(error.max() / (1 + expected.abs().max()))
    expect(worst <= near, f"{what} by {worst:.2g}")


def runs(parts: Parts, case: Case) -> None:
    """A model runs, and its output is finite."""
    with torch.no_grad():
        logits = parts.model(case.sizes)(case.tokens())
    expect(logits.isfinite().all(), "the output of a model is not finite")


@PROPERTIES.declare("cached = whole", each_case)
@torch.no_grad()
def cached(parts: Parts, case: Case) -> None:
    """Reading tokens one by one gives what one pass over all of them gives."""
    model, tokens = parts.model(case.sizes), case.tokens()
    whole, cache = model(tokens), model.make_cache(case.length)
    first = (case.length + 1) // 2
    pieces = [model(tokens[:, :first], cache=cache)]
    pieces += [model(tokens[:, i : i + 1], cache=cache) for i in range(first, case.length)]
    expect_near(torch.cat(pieces, 1), whole, "decoding with a cache differs from one pass")


@PROPERTIES.declare("selected = all", each_case)
@torch.no_grad()
def selected(parts: Parts, case: Case) -> None:
    """Some queries give what they give among all."""
    model, tokens = parts.model(case.sizes), case.tokens()
    select = torch.arange(case.length - 1, -1, -2).flip(0)
    some_queries, whole = model(tokens, select=select), model(tokens)[:, select]
    expect_near(some_queries, whole, "some queries alone differ from all queries")


@PROPERTIES.declare("padded = unpadded", each_case)
@torch.no_grad()
def padded(parts: Parts, case: Case) -> None:
    """A row gives the same with padding after it as without."""
    mixed = not isinstance(parts.mixer, AttentionMixer)
    causal_only = parts.attention.weighting.causal_only or parts.position.causal_only
    causal_only = mixed or causal_only or parts.attention.selective
    for kind in [Decoder] if causal_only else [Decoder, Encoder]:
        model, tokens = parts.model(case.sizes, kind), case.tokens()
        longer = torch.nn.functional.pad(tokens, (0, 3), value=PAD)
        longer = torch.cat([longer, torch.zeros(1, case.length + 3, dtype=torch.long)])
        padded_output = model(longer)[: case.batch, : case.length]
        what = f"a padded row of a {kind.__name__.lower()} differs from the row alone"
        expect_near(padded_output, model(tokens), what)


def _require(backend: str, parts: Parts) -> None:
    able = usable(parts.attention.weighting, parts.position)
    able = [name for name in able if name in parts.attention.backends]
    if backend not in able:
        raise DoesNotApply(f"backends of these choices are {', '.join(able)}")


@PROPERTIES.declare(
    "chunked = whole", lambda parts: [Case(n, 1, parts.sizes()[:2][-1]) for n in LONG_LENGTHS]
)
def chunked(parts: Parts, case: Case) -> None:
    """Some queries and keys at a time give what the whole gives, forward and gradient."""
    _require("blockwise", parts)
    tiled, expected = (_attend(parts, case, run) for run in (blockwise.in_tiles, reference.attend))
    for name, tensor in expected.items():
        expect_near(tiled[name], tensor, f"{name} of the blockwise backend differs", 1e-3)


def _attend(parts: Parts, case: Case, run: Any) -> dict[str, Tensor]:
    """The output of one layer's attention and its gradients."""
    layer = parts.layer(case.sizes)
    q, k, v, bias = layer.project(2 * case.states())
    out = run(q, k, v, layer.normalizer, bias, layer.normalizer_state)
    out.backward(normal(*out.shape, seed=2))
    gradients = {
        f"the gradient of {name}": tensor.grad
        for name, tensor in layer.named_parameters()
        if tensor.grad is not None
    }
    return {"the output": out.detach()} | gradients


@PROPERTIES.declare("backends agree", lambda parts: each_case(parts, LONG_LENGTHS, 1))
@torch.no_grad()
def backends(parts: Parts, case: Case) -> None:
    """The kernels give what the reference gives."""
    _require("triton", parts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layer, normalizer = parts.layer(case.sizes).to(device), parts.attention.weighting
    q, k, v, bias = layer.project(case.states().to(device))
    problem = triton.obstacle(q, v, normalizer, bias)
    if problem:
        raise DoesNotApply(f"triton {problem}")
    computed = triton.attend(q, k, v, normalizer, bias, layer.normalizer_state)
    expected = reference.attend(q, k, v, normalizer, bias, layer.normalizer_state)
    expect_near(computed, expected, "the triton backend differs", 1e-3)


@PROPERTIES.declare("draws repeat", each_case)
@torch.no_grad()
def repeated(parts: Parts, case: Case) -> None:
    """Two evaluations, and two models from one seed, are equal to the last bit."""
    model, tokens = parts.model(case.sizes), case.tokens()
    first = model(tokens)
    for other in (model(tokens), parts.model(case.sizes)(tokens)):
        expect(torch.equal(first, other), "two evaluations of the same model differ")


@PROPERTIES.declare("learned tensors")
def learned(parts: Parts, _: None) -> None:
    """Learned tensors are made anew for each layer, and each is used and gets a gradient."""
    unused: dict[str, Case] = {}
    used: set[str] = set()
    for case in each_case(parts, (5, 8)):
        model = parts.model(case.sizes)
        own = dict(owned(parts, model))
        if not own:
            raise DoesNotApply("learned() returns none")
        first = [tensor for _, tensor in owned(parts, parts.model(case.sizes, start=True))]
        addresses = [tensor.data_ptr() for tensor in first if tensor.numel()]
        same = len(set(addresses)) < len(addresses)
        expect(not same, "learned() returns the same tensor each time it is called", case)
        model(case.tokens()).square().sum().backward()
        for name, tensor in own.items():
            name = name.rpartition(".")[2]
            if tensor.numel() and tensor.grad is not None and bool(tensor.grad.any()):
                finite = tensor.grad.isfinite().all()
                expect(finite, f"the gradient of {name} is not finite", case)
                used.add(name)
            elif tensor.numel():
                unused.setdefault(name, case)
    for name, case in unused.items():
        what = f"the learned tensor {name!r} gets no gradient, so it is not used"
        expect(name in used, what, case)


def owned(parts: Parts, model: Any) -> Iterator[tuple[str, Tensor]]:
    """The learned tensors of the choice that is checked, in every layer of a model."""
    attention = parts.attention
    states = {
        "normalizer_state": attention.normalizer,
        "scaling_state": attention.scaling,
        "output_norm_state": attention.output_norm,
        "position_state": parts.position,
    }
    for name, tensor in model.named_parameters():
        if not tensor.requires_grad:
            continue
        if any(owner is parts.owner and f"{state}." in name for state, owner in states.items()):
            yield name, tensor
