"""Properties of a position encoding, besides those in a model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lcg.attention import Attention
from lcg.attention.hooks import position_ids, returned
from lcg.checks import model
from lcg.checks.gradients import check_gradients
from lcg.checks.model import Case, Parts, each_case, expect_near, learned_of, runs, short_cases
from lcg.checks.properties import DoesNotApply, Properties, expect
from lcg.positional.base import PositionEncoding, Tile

SHIFTS = (5, 1000)
PROPERTIES = Properties()


@PROPERTIES.declare("shapes", each_case)
def shapes(parts: Parts, case: Case) -> None:
    """Every hook returns tensors of the right shapes and types, and a model runs."""
    parts.layer(case.sizes)  # which looks at the arguments of hooks
    position, sizes = parts.position, case.sizes
    ids = position_ids(position, position.positions(case.length), case.length)
    x, q, k = _inputs(case)
    embedding, learned = _embedding(position, case), learned_of(position, sizes)
    for dtype in (torch.float32, torch.bfloat16):
        x, q, k = (t.to(dtype) for t in (x, q, k))
        embedded = returned(position, "embed", position.embed(x, ids, embedding), x.shape)
        turned_q = position.rotate_queries(q, ids, learned)
        turned_k = position.rotate_keys(k, ids, learned)
        width = turned_k.shape[-1] if isinstance(turned_k, Tensor) else q.shape[-1]
        returned(position, "rotate_queries", turned_q, (*q.shape[:3], width))
        returned(position, "rotate_keys", turned_k, (*k.shape[:3], width))
        returned_by = {"embed": embedded, "rotate_queries": turned_q, "rotate_keys": turned_k}
        for name, tensor in returned_by.items():
            expect(tensor.dtype == dtype, f"{name}() made {tensor.dtype} of {dtype}")
    slopes = position.slopes(sizes.heads)
    if slopes is not None:
        returned(position, "slopes", slopes, (sizes.heads,))
        expect(slopes.dtype == torch.float32, f"slopes() returned {slopes.dtype}")
    runs(parts, case)


@PROPERTIES.declare("relative", each_case, promise="relative")
@torch.no_grad()
def relative(parts: Parts, case: Case) -> None:
    """Scores stay the same when all positions are shifted."""
    layer, embedding = parts.layer(case.sizes), _embedding(parts.position, case)
    ids, x = parts.position.positions(case.length), _inputs(case)[0]
    found = {}
    for shift in (0, *SHIFTS):
        state = parts.position.embed(x, ids + shift, embedding)
        found[shift] = layer.scores(state, ids + shift)
    finite = found[0].isfinite()
    for shift in SHIFTS:
        what = f"relative is True, but scores differ when positions are shifted by {shift},"
        expect_near(found[shift][finite], found[0][finite], what, 1e-3)


@PROPERTIES.declare("scores in parts", each_case)
@torch.no_grad()
def scores_in_parts(parts: Parts, case: Case) -> None:
    """The scores of some queries are those of all; without map_scores() of some keys too."""
    position = parts.position
    if not position.has("bias") and not position.has("map_scores"):
        raise DoesNotApply("there is neither bias() nor map_scores()")
    layer, half = parts.layer(case.sizes), case.length // 2
    q, k, _, bias = layer.project(case.states())
    whole = _scores(bias, q, k)
    for queries in (slice(0, half), slice(half, case.length)):
        for keys in (slice(0, queries.stop), slice(half, queries.stop)):
            if queries.start >= queries.stop or keys.start >= keys.stop:
                continue
            if position.has("map_scores") and keys.start:  # it may read whole rows
                continue
            part = _scores(bias.crop(queries, keys), q[:, :, queries], k[:, :, keys])
            wanted = whole[:, :, queries, keys]
            seen = wanted.isfinite() & part.isfinite()
            what = "scores of some queries and keys differ from those of all"
            expect_near(part[seen], wanted[seen], what)


@PROPERTIES.declare("ids drawn", each_case)
def ids_drawn(parts: Parts, case: Case) -> None:
    """Ids that are drawn are numbers [b t], the same from one generator, and in a model."""
    position = parts.position
    if not position.has("draw_positions"):
        raise DoesNotApply("there is no draw_positions()")
    lengths = np.full(case.batch, case.length)
    for training in (True, False):
        first, again = (
            position.draw_positions(np.random.default_rng(0), lengths, training) for _ in range(2)
        )
        what = f"draw_positions() returned {np.shape(first)}, expected {(case.batch, case.length)}"
        expect(np.shape(first) == (case.batch, case.length), what)
        expect(np.array_equal(first, again), "two draws of one generator differ")
    with torch.no_grad():
        logits = parts.model(case.sizes)(case.tokens(), torch.from_numpy(first))
    expect(logits.isfinite().all(), "the output of a model with drawn ids is not finite")


@PROPERTIES.declare("gradient", short_cases)
def gradient(parts: Parts, case: Case) -> None:
    """Autograd agrees with finite differences, in what the hooks change and learned tensors."""
    position = parts.position
    ids = position.positions(case.length)
    x, q, k = (tensor.double() for tensor in _inputs(case))
    hidden = ids[:, None] < ids

    def rotate(q, k, learned):
        turned = position.rotate_queries(q, ids, learned), position.rotate_keys(k, ids, learned)
        return torch.cat([tensor.flatten() for tensor in turned])

    def scores(x, q, k, learned):
        state = position.state(x, learned)
        tile = Tile(ids[:, None], ids, q, k, state, state, hidden)
        shared = q.shape[1] // k.shape[1]
        found = position.map_scores(q @ k.repeat_interleave(shared, 1).mT, tile, learned)
        bias = position.bias(tile, learned)
        found = found if bias is None else found + bias
        if position.has("separable"):
            rows, columns = position.separable(state, state)
            found = found + rows[..., None] + columns[..., None, :]
        if position.has("table"):
            found = found + position.table(torch.arange(case.length), learned)[:, None]
        return found.masked_fill(hidden, 0.0)

    check_gradients(
        lambda x, learned: position.embed(x, ids, learned),
        {"x": x},
        _embedding(position, case, torch.float64),
    )
    learned = learned_of(position, case.sizes, dtype=torch.float64)
    check_gradients(rotate, {"q": q, "k": k}, learned)
    check_gradients(scores, {"x": x, "q": q, "k": k}, learned)


def _inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """x [b t w], q [b h t d] and k [b g t d]."""
    draw, sizes = torch.Generator().manual_seed(case.length), case.sizes
    shapes = (
        (case.batch, case.length, sizes.d_model),
        (case.batch, sizes.heads, case.length, sizes.head_dim),
        (case.batch, sizes.kv_heads, case.length, sizes.head_dim),
    )
    x, q, k = (torch.randn(shape, generator=draw) for shape in shapes)
    return x, q, k


def _scores(bias, q: Tensor, k: Tensor) -> Tensor:
    products = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT * bias.scale_for(q)
    return bias.scores(products, q, k)[0]


def _embedding(
    position: PositionEncoding, case: Case, dtype: torch.dtype = torch.float32
) -> torch.nn.ParameterDict:
    return learned_of(position, case.sizes, dtype=dtype, method="learned_embedding")


def subject(position: PositionEncoding) -> Parts:
    """The encoding under softmax."""
    return Parts(position, Attention(), position)


PROPERTIES.update(model.PROPERTIES)
