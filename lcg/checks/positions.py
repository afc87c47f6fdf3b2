"""Properties of a position encoding, besides those in a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lcg.attention import Attention
from lcg.attention.hooks import learned_tensors, position_ids, returned
from lcg.checks import model
from lcg.checks.gradients import check_gradients
from lcg.checks.model import Case, Parts, each_case, expect_near, stirred
from lcg.checks.properties import Cases, DoesNotApply, Property, expect
from lcg.positional.base import BiasContext, PositionEncoding

SHIFTS = (5, 1000)


def shapes(parts: Parts, cases: Cases) -> None:
    """Every hook returns tensors of the right shapes and types, and a model runs."""
    position = parts.position
    expect(parts.sizes(), "check(sizes) refuses all sizes that are tried")
    for case in cases.each(each_case(parts)):
        ids = position_ids(position, position.positions(case.length), case.length)
        context, sizes = _context(case, ids), case.sizes
        for dtype in (torch.float32, torch.bfloat16):
            x, q, k = (t.to(dtype) for t in (context.x, context.q, context.k))
            hooks = {
                "embed": (position.embed(x, ids, _embedding(position, case)), x),
                "rotate_queries": (position.rotate_queries(q, ids), q),
                "rotate_keys": (position.rotate_keys(k, ids), k),
            }
            for name, (found, given) in hooks.items():
                returned(position, name, found, given.shape)
                expect(found.dtype == given.dtype, f"{name}() made {found.dtype} of {given.dtype}")
        slopes = position.slopes(sizes.heads)
        if slopes is not None:
            returned(position, "slopes", slopes, (sizes.heads,))
            expect(slopes.dtype == torch.float32, f"slopes() returned {slopes.dtype}")
    model.runs(parts, cases)


def relative(parts: Parts, cases: Cases) -> None:
    """Scores stay the same when all positions are shifted."""
    if not parts.position.relative:
        raise DoesNotApply("relative is False")
    with torch.no_grad():
        for case in cases.each(each_case(parts)):
            layer = parts.layer(case.sizes)
            ids = parts.position.positions(case.length)
            x = _context(case, ids).x
            found = {}
            for shift in (0, *SHIFTS):
                state = parts.position.embed(x, ids + shift, _embedding(parts.position, case))
                found[shift] = layer.scores(state, ids + shift)
            finite = found[0].isfinite()
            for shift in SHIFTS:
                what = f"relative is True, but scores differ when positions are shifted by {shift},"
                expect_near(found[shift][finite], found[0][finite], what, 1e-3)


def bias_in_parts(parts: Parts, cases: Cases) -> None:
    """The bias of some queries and keys is that of the whole, and reads neither q, k nor x."""
    position = parts.position
    if type(position).bias is PositionEncoding.bias:
        raise DoesNotApply("there is no bias()")
    if position.data_dependent:
        raise DoesNotApply("data_dependent is True")
    with torch.no_grad():
        for case in cases.each(each_case(parts)):
            ids = position.positions(case.length)
            context, learned = _context(case, ids), _state(position, case)
            whole = _full(position.bias(context, learned), case)
            half = case.length // 2
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


def gradient(parts: Parts, cases: Cases) -> None:
    """Autograd agrees with finite differences, in what the hooks change and learned tensors."""
    position = parts.position
    for case in cases.each(each_case(parts, (1, 2, 5))):
        ids = position.positions(case.length)
        wide = _context(case, ids, torch.float64)
        embedding = dict(_embedding(position, case, torch.float64).items())
        learned = dict(_state(position, case, torch.float64).items())

        def embed(inputs, ids=ids):
            return position.embed(inputs["x"], ids, {k: v for k, v in inputs.items() if k != "x"})

        def rotate(inputs, ids=ids):
            q, k = position.rotate_queries(inputs["q"], ids), position.rotate_keys(inputs["k"], ids)
            return torch.cat([q.flatten(), k.flatten()])

        def bias(inputs, wide=wide):
            own = {k: v for k, v in inputs.items() if k not in ("q", "k", "x")}
            context = wide._replace(q=inputs["q"], k=inputs["k"], x=inputs["x"])
            found = position.bias(context, own)
            return torch.ones(1, dtype=torch.float64) if found is None else found

        check_gradients(embed, {"x": wide.x} | embedding)
        check_gradients(rotate, {"q": wide.q, "k": wide.k})
        check_gradients(bias, {"q": wide.q, "k": wide.k, "x": wide.x} | learned)


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


def _state(position: Any, case: Case, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return stirred(learned_tensors(position, position.learned(case.sizes)).to(dtype))


def _embedding(position: Any, case: Case, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = position.learned_embedding(case.sizes)
        found = learned_tensors(position, tensors, "learned_embedding")
        return stirred(found.to(dtype))


def subject(position: PositionEncoding) -> Parts:
    """The encoding under softmax."""
    return Parts(position, Attention(), position)


PROPERTIES: dict[str, Property] = {
    "shapes": shapes,
    "relative": relative,
    "bias in parts": bias_in_parts,
    "gradient": gradient,
} | model.PROPERTIES
