"""Properties of a normalizer, a query scaling and an output norm, besides those in a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lcg.attention import Attention
from lcg.attention.functional import Bias, attend, attention_weights
from lcg.attention.hooks import learned_tensors, normalized, returned
from lcg.checks import model
from lcg.checks.gradients import check_gradients
from lcg.checks.model import (
    Case,
    Parts,
    each_case,
    expect_near,
    learned_of,
    normal,
    runs,
    short_cases,
)
from lcg.checks.properties import Properties, expect
from lcg.positional.base import Sizes
from lcg.positional.nope import NoPE

NEAR = 1e-5
ROWS = ((1, 1), (1, 2), (2, 3), (3, 5), (5, 8), (3, 41))
"""Queries and keys."""
LARGE = 100.0  # exp of it overflows in float32, and of its negative it underflows
MANY = 4096  # keys
NORMALIZER, SCALING, NORM = Properties(), Properties(), Properties()


class Row(NamedTuple):
    """Scores of one try."""

    queries: int
    keys: int
    sizes: Sizes

    def __str__(self) -> str:
        return f"{self.keys} keys, {self.queries} queries, heads {self.sizes.heads}"

    def scores(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[2 h q k]"""
        return 2 * normal(2, self.sizes.heads, self.queries, self.keys, seed=self.keys, dtype=dtype)

    def masked(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Scores with -inf at some keys, not all of them, and which these are [k]."""
        draw = torch.Generator().manual_seed(self.keys + 1)
        hidden = torch.rand(self.keys, generator=draw) < 0.4
        hidden[self.keys // 2] = False
        return self.scores(dtype).masked_fill(hidden, -torch.inf), hidden

    def varied(self) -> tuple[Tensor, ...]:
        """Scores, masked ones, and large ones of either sign."""
        scores = self.scores()
        return scores, self.masked()[0], scores + LARGE, scores - LARGE


def each_row(parts: Parts) -> Iterator[Row]:
    """Scores from the smallest up."""
    for queries, keys in ROWS:
        for sizes in parts.sizes()[:3]:
            yield Row(queries, keys, sizes)


def _weights(parts: Parts, row: Row, scores: Tensor, keys: Tensor | None = None) -> Tensor:
    keys = torch.arange(scores.shape[-1]) if keys is None else keys
    with torch.no_grad():
        return normalized(parts.owner, scores, keys, learned_of(parts.owner, row.sizes))


@NORMALIZER.declare("shapes", lambda parts: [*each_row(parts), *each_case(parts)])
def normalizer_shapes(parts: Parts, case: Row | Case) -> None:
    """Weights have the shape and type of the scores and are finite, and a model runs."""
    if isinstance(case, Case):
        runs(parts, case)
        return
    tensors = parts.owner.learned(case.sizes)
    learned_tensors(parts.owner, tensors, rows=case.sizes.heads)
    for scores in case.varied():
        finite = _weights(parts, case, scores).isfinite().all()
        about = f" for scores of about {scores.mean():.0f}" if scores.min() > -torch.inf else ""
        expect(finite, f"weights() returned values that are not finite{about}")


@NORMALIZER.declare("masked keys", each_row)
def masked_keys(parts: Parts, row: Row) -> None:
    """Masked keys have weight 0, and the others what they have without them."""
    scores, hidden = row.masked()
    weights = _weights(parts, row, scores)
    expect((weights[..., hidden] == 0).all(), "a masked key has weight")
    alone = _weights(parts, row, scores[..., ~hidden], torch.arange(row.keys)[~hidden])
    what = "weights differ when masked keys are taken away,"
    expect_near(weights[..., ~hidden], alone, what, NEAR)


@NORMALIZER.declare("empty rows", each_row)
def empty_rows(parts: Parts, row: Row) -> None:
    """A query that sees no key gets zeros and passes no gradient."""
    tensors = normal(3, 2, row.sizes.heads, row.keys, 4, seed=0).unbind()
    q, k, v = (tensor.requires_grad_() for tensor in tensors)
    mask = torch.ones(2, row.keys, dtype=torch.bool)
    mask[0] = False
    ids = torch.arange(row.keys)
    bias = Bias(ids, ids, causal=parts.owner.causal_only, key_mask=mask)
    out = attend(q, k, v, parts.owner, bias, learned_of(parts.owner, row.sizes), "reference")
    expect((out[0] == 0).all(), "a query that sees no key does not get zeros")
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        expect(gradient.isfinite().all(), "a query that sees no key has a NaN gradient")


@NORMALIZER.declare("sums to one", each_row, promise="rows_sum_to_one")
def sums_to_one(parts: Parts, row: Row) -> None:
    """Rows sum to one."""
    for scores in row.varied():
        worst = float((_weights(parts, row, scores).sum(dim=-1) - 1).abs().max())
        expect(worst <= 1e-4, f"rows_sum_to_one is True, but a row sums to 1 ± {worst:.2g}")


@NORMALIZER.declare("shift-invariant", each_row, promise="shift_invariant")
def shift_invariant(parts: Parts, row: Row) -> None:
    """A constant added to a row changes nothing."""
    expected = _weights(parts, row, row.scores())
    for shift in (3.0, -8.0, LARGE, -LARGE):
        what = f"shift_invariant is True, but weights differ when {shift:g} is added,"
        expect_near(_weights(parts, row, row.scores() + shift), expected, what)


@NORMALIZER.declare("sparse", lambda p: [*each_row(p), Row(1, MANY, p.sizes()[0])], "sparse")
@torch.no_grad()
def sparse(parts: Parts, row: Row) -> None:
    """Scores below `support_edge` have weight 0, whatever other keys a row has."""
    normalizer, state = parts.owner, learned_of(parts.owner, row.sizes)
    if row.keys == MANY:
        scores = -80 * torch.rand(row.scores().shape, generator=torch.Generator().manual_seed(0))
        edge = normalizer.support_edge(scores, state)
        has_zeros = bool((_weights(parts, row, scores) == 0).any())
        what = "sparse is True, but of scores from 0 to -80 none has weight 0 or a support_edge()"
        expect(has_zeros or edge.isfinite().any(), what)
        return
    scores = row.scores()
    weights = _weights(parts, row, scores)
    for count in range(1, row.keys + 1):
        edge = normalizer.support_edge(scores[..., :count], state)
        returned(normalizer, "support_edge", edge, (*scores.shape[:-1], 1))
        below = weights[scores < edge - 1e-4 * (1 + edge.abs())]
        expect((below == 0).all(), "a score below support_edge() has weight")


@NORMALIZER.declare("is softmax", each_row, promise="is_softmax")
def is_softmax(parts: Parts, row: Row) -> None:
    """The weights are those of softmax."""
    expected = row.scores().softmax(dim=-1)
    what = "is_softmax is True, but weights differ from softmax"
    expect_near(_weights(parts, row, row.scores()), expected, what, NEAR)


@NORMALIZER.declare("elementwise", each_row, promise="elementwise")
@torch.no_grad()
def elementwise(parts: Parts, row: Row) -> None:
    """`weights` of some keys are those of all, and what calling the normalizer gives."""
    normalizer, state = parts.owner, learned_of(parts.owner, row.sizes)
    scores, keys = row.scores(), torch.arange(row.keys)
    statistics = normalizer.row_statistics(scores, keys, state)
    fits = isinstance(statistics, tuple)
    fits = fits and all(s.shape[:-1] == scores.shape[:-1] for s in statistics)
    fits = fits and all(s.shape[-1] in (1, 2) for s in statistics)
    expect(fits, "row_statistics() must return a tuple of tensors [… q 1] or [… q 2]")
    whole = normalizer(scores, keys, state)
    for part in (slice(0, (row.keys + 1) // 2), slice(row.keys // 2, row.keys)):
        partial_weights = normalizer.weights(scores[..., part], statistics, keys[part], state)
        what = "weights() of some keys differ from those of the whole row"
        expect_near(partial_weights, whole[..., part], what, NEAR)


@NORMALIZER.declare("own key")
def own_key(parts: Parts, _: None) -> None:
    """Under a causal mask a query sees its own key, or does not, as `sees_itself` says."""
    seen = False
    for row in each_row(parts):
        ids = torch.arange(row.keys)
        q, k = normal(2, 4, row.sizes.heads, row.keys, 4, seed=row.keys)
        state = learned_of(parts.owner, row.sizes)
        with torch.no_grad():
            weights = attention_weights(q, k, parts.owner, Bias(ids, ids), state)
        seen = bool((weights.diagonal(dim1=-2, dim2=-1) != 0).any()) or seen
        if seen and not parts.owner.sees_itself:
            expect(False, "sees_itself is False, but a query's own key has weight", row)
    if parts.owner.sees_itself:
        expect(seen, "sees_itself is True, but no query's own key ever has weight", row)


@NORMALIZER.declare("gradient", each_row)
def normalizer_gradient(parts: Parts, row: Row) -> None:
    """Autograd agrees with finite differences, in scores and learned tensors."""
    keys = torch.arange(row.keys)
    state = learned_of(parts.owner, row.sizes, dtype=torch.float64)
    for scores in (row.scores(torch.float64), row.masked(torch.float64)[0]):
        check_gradients(
            lambda scores, learned: parts.owner(scores, keys, learned),
            {"the scores": scores},
            state,
        )


def _counts(case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """n as causal attention and as padded full attention give it."""
    rising = torch.arange(1, case.length + 1, dtype=dtype)
    rows = torch.arange(case.length, case.length + case.batch, dtype=dtype)
    return [rising, rows[:, None].expand(case.batch, case.length)]


@SCALING.declare("shapes", each_case)
def scaling_shapes(parts: Parts, case: Case) -> None:
    """A multiplier per query and head, finite from one visible key on, and a model runs."""
    parts.layer(case.sizes)  # which looks at the arguments of hooks
    state = learned_of(parts.owner, case.sizes.heads, case.sizes.d_model)
    for n in _counts(case):
        with torch.no_grad():
            scaler = parts.owner(case.states(), n, state)
        if scaler is not None:
            shapes = [(heads, case.length) for heads in (case.sizes.heads, 1)]
            shapes += [(case.batch, *shape) for shape in shapes]
            returned(parts.owner, "__call__", scaler, *dict.fromkeys(shapes))
            expect(scaler.isfinite().all(), f"the multiplier is not finite at n = {n.min():g}")
    runs(parts, case)


@SCALING.declare("gradient", short_cases)
def scaling_gradient(parts: Parts, case: Case) -> None:
    """Autograd agrees with finite differences, in the input and learned tensors."""
    sizes = case.sizes.heads, case.sizes.d_model
    state = learned_of(parts.owner, *sizes, dtype=torch.float64)
    for n in _counts(case, torch.float64):
        check_gradients(
            lambda x, learned, n=n: parts.owner(x, n, learned),
            {"x": case.states(torch.float64)},
            state,
        )


@NORM.declare("shapes", each_case)
def norm_shapes(parts: Parts, case: Case) -> None:
    """The joined heads have their width and type, zeros stay finite, and a model runs."""
    parts.layer(case.sizes)  # which looks at the arguments of hooks
    norm, shared = parts.owner, case.sizes.heads // case.sizes.kv_heads
    states, values = case.states(), _heads(case, case.sizes.kv_heads)
    for size, dtype in ((1, torch.float32), (0, torch.float32), (1, torch.bfloat16)):
        state = learned_of(norm, case.sizes, dtype=dtype)
        x, v = (size * t.to(dtype) for t in (states, values))
        with torch.no_grad():
            heads = norm.values(v, state).repeat_interleave(shared, dim=1)
            joined = norm.join(heads, x, state)
        returned(norm, "join", joined, (*x.shape[:2], case.sizes.width))
        expect(joined.dtype == x.dtype, f"{x.dtype} became {joined.dtype}")
        expect(joined.isfinite().all(), "the output is not finite")
    runs(parts, case)


@NORM.declare("gradient", short_cases)
def norm_gradient(parts: Parts, case: Case) -> None:
    """Autograd agrees with finite differences, in the heads and learned tensors."""
    norm, shared = parts.owner, case.sizes.heads // case.sizes.kv_heads
    state = learned_of(norm, case.sizes, dtype=torch.float64)

    def joined(v, x, learned):
        heads = norm.values(v, learned).repeat_interleave(shared, dim=1)
        return norm.join(heads, x, learned)

    values = _heads(case, case.sizes.kv_heads).double()
    check_gradients(joined, {"v": values, "x": case.states(torch.float64)}, state)


def _heads(case: Case, heads: int) -> Tensor:
    return normal(case.batch, heads, case.length, case.sizes.head_dim, seed=case.length + 1)


def subjects(attention: Attention) -> Iterator[tuple[str, Parts, Properties]]:
    """Each choice of an attention by its kind, in a model of its own, and its properties.

    The normalizer's has the options of the attention too: qk_norm, sink, softcap, selective.
    """
    groups = {"normalizer": NORMALIZER, "scaling": SCALING, "output_norm": NORM}
    for kind, properties in groups.items():
        choice = getattr(attention, kind)
        if choice.name != "none":
            alone = Attention(**{kind: choice})
            if kind == "normalizer":
                parts = {"scaling": alone.scaling, "output_norm": alone.output_norm}
                alone = replace(attention, **parts, backend="auto")
            parts = Parts(choice, alone, NoPE())
            yield kind, parts, Properties(properties | model.PROPERTIES)
