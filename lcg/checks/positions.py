"""Properties of a position encoding, besides those in a model."""

from __future__ import annotations

import torch
from torch import Tensor

from lcg.attention import Attention
from lcg.attention.hooks import position_ids, returned
from lcg.checks import model
from lcg.checks.gradients import check_gradients
from lcg.checks.model import Case, Parts, each_case, expect_near, learned_of, runs, short_cases
from lcg.checks.properties import DoesNotApply, Properties, expect
from lcg.positional.base import BiasContext, PositionEncoding

SHIFTS = (5, 1000)
PROPERTIES = Properties()


@PROPERTIES.declare("shapes", each_case)
def shapes(parts: Parts, case: Case) -> None:
    """Every hook returns tensors of the right shapes and types, and a model runs."""
    position = parts.position
    ids = position_ids(position, position.positions(case.length), case.length)
    context, embedding = _context(case, ids), _embedding(position, case)
    for dtype in (torch.float32, torch.bfloat16):
        x, q, k = (t.to(dtype) for t in (context.x, context.q, context.k))
        hooks = {
            "embed": (position.embed(x, ids, embedding), x),
            "rotate_queries": (position.rotate_queries(q, ids), q),
            "rotate_keys": (position.rotate_keys(k, ids), k),
        }
        for name, (found, given) in hooks.items():
            returned(position, name, found, given.shape)
            expect(found.dtype == given.dtype, f"{name}() made {found.dtype} of {given.dtype}")
    slopes = position.slopes(case.sizes.heads)
    if slopes is not None:
        returned(position, "slopes", slopes, (case.sizes.heads,))
        expect(slopes.dtype == torch.float32, f"slopes() returned {slopes.dtype}")
    runs(parts, case)


@PROPERTIES.declare("relative", each_case, promise="relative")
@torch.no_grad()
def relative(parts: Parts, case: Case) -> None:
    """Scores stay the same when all positions are shifted."""
    layer, embedding = parts.layer(case.sizes), _embedding(parts.position, case)
    ids = parts.position.positions(case.length)
    x = _context(case, ids).x
    found = {}
    for shift in (0, *SHIFTS):
        state = parts.position.embed(x, ids + shift, embedding)
        found[shift] = layer.scores(state, ids + shift)
    finite = found[0].isfinite()
    for shift in SHIFTS:
        what = f"relative is True, but scores differ when positions are shifted by {shift},"
        expect_near(found[shift][finite], found[0][finite], what, 1e-3)


@PROPERTIES.declare("bias in parts", each_case)
@torch.no_grad()
def bias_in_parts(parts: Parts, case: Case) -> None:
    """The bias of some queries and keys is that of the whole, and reads neither q, k nor x."""
    position = parts.position
    if type(position).bias is PositionEncoding.bias:
        raise DoesNotApply("there is no bias()")
    if position.data_dependent:
        raise DoesNotApply("data_dependent is True")
    context = _context(case, position.positions(case.length))
    learned = learned_of(position, case.sizes)
    whole, half = _full(position.bias(context, learned), case), case.length // 2
    for queries in (slice(0, half), slice(half, case.length)):
        for keys in (slice(0, half + 1), slice(half, case.length)):
            if queries.start == queries.stop:
                continue
            part = position.bias(context.crop(queries, keys), learned)
            wanted = whole[:, :, queries, keys]
            what = "bias() of some queries and keys differs from that of the whole"
            expect_near(part.expand(wanted.shape), wanted, what)
    other = context._replace(q=-context.q, k=2 * context.k, x=context.x + 1)
    what = "data_dependent is False, but bias() changes with q, k or x,"
    expect_near(_full(position.bias(other, learned), case), whole, what)


@PROPERTIES.declare("gradient", short_cases)
def gradient(parts: Parts, case: Case) -> None:
    """Autograd agrees with finite differences, in what the hooks change and learned tensors."""
    position = parts.position
    ids = position.positions(case.length)
    wide = _context(case, ids, torch.float64)

    def rotate(q, k, learned):
        q, k = position.rotate_queries(q, ids), position.rotate_keys(k, ids)
        return torch.cat([q.flatten(), k.flatten()])

    def bias(q, k, x, learned):
        found = position.bias(wide._replace(q=q, k=k, x=x), learned)
        return torch.ones(1, dtype=torch.float64) if found is None else found

    check_gradients(
        lambda x, learned: position.embed(x, ids, learned),
        {"x": wide.x},
        _embedding(position, case, torch.float64),
    )
    check_gradients(rotate, {"q": wide.q, "k": wide.k}, {})
    learned = learned_of(position, case.sizes, dtype=torch.float64)
    check_gradients(bias, {"q": wide.q, "k": wide.k, "x": wide.x}, learned)


def _context(case: Case, ids: Tensor, dtype: torch.dtype = torch.float32) -> BiasContext:
    draw = torch.Generator().manual_seed(case.length)
    sizes = case.sizes
    shapes = {
        "q": (case.batch, sizes.heads, case.length, sizes.head_dim),
        "k": (case.batch, sizes.kv_heads, case.length, sizes.head_dim),
        "x": (case.batch, case.length, sizes.d_model),
    }
    tensors = {k: torch.randn(s, generator=draw, dtype=dtype) for k, s in shapes.items()}
    return BiasContext(**tensors, q_positions=ids, k_positions=ids)


def _full(bias: Tensor | None, case: Case) -> Tensor:
    shape = case.batch, case.sizes.heads, case.length, case.length
    return torch.zeros(shape) if bias is None else bias.expand(shape)


def _embedding(
    position: PositionEncoding, case: Case, dtype: torch.dtype = torch.float32
) -> torch.nn.ParameterDict:
    return learned_of(position, case.sizes, dtype=dtype, method="learned_embedding")


def subject(position: PositionEncoding) -> Parts:
    """The encoding under softmax."""
    return Parts(position, Attention(), position)


PROPERTIES.update(model.PROPERTIES)
