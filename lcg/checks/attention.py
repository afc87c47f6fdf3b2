"""Properties of a normalizer, a query scaling and an output norm, besides those in a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcg.attention import Attention
from lcg.attention.functional import Bias, attend, attention_weights
from lcg.attention.hooks import learned_tensors, normalized, returned
from lcg.attention.normalizers.base import Normalizer
from lcg.checks import model
from lcg.checks.gradients import check_gradients
from lcg.checks.model import Parts, expect_near, stirred
from lcg.checks.properties import Cases, DoesNotApply, Property, expect
from lcg.positional.base import Sizes
from lcg.positional.nope import NoPE

NEAR = 1e-5
ROWS = ((1, 1), (1, 2), (2, 3), (3, 5), (5, 8), (3, 41))
"""Queries and keys."""
LARGE = 100.0  # exp of it overflows in float32, and of its negative it underflows
MANY = 4096  # keys


class Row(NamedTuple):
    """Scores of one try."""

    queries: int
    keys: int
    sizes: Sizes

    def __str__(self) -> str:
        return f"{self.keys} keys, {self.queries} queries, heads {self.sizes.heads}"

    def scores(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[2 h q k]"""
        draw = torch.Generator().manual_seed(self.keys)
        shape = 2, self.sizes.heads, self.queries, self.keys
        return 2 * torch.randn(shape, generator=draw, dtype=dtype)

    def masked(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Scores with -inf at some keys, not all of them, and which these are [k]."""
        draw = torch.Generator().manual_seed(self.keys + 1)
        hidden = torch.rand(self.keys, generator=draw) < 0.4
        hidden[self.keys // 2] = False
        return self.scores(dtype).masked_fill(hidden, -torch.inf), hidden


def each_row(parts: Parts) -> Iterator[Row]:
    """Scores from the smallest up."""
    for queries, keys in ROWS:
        for sizes in parts.sizes()[:3]:
            yield Row(queries, keys, sizes)


def state_of(owner: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    """Learned tensors of a choice, moved a little from their start."""
    return stirred(learned_tensors(owner, tensors).to(dtype))


def _learned(normalizer: Normalizer, sizes: Sizes, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return state_of(normalizer, normalizer.learned(sizes), dtype)


def _weights(normalizer: Normalizer, row: Row, scores: Tensor, keys: Tensor | None = None):
    keys = torch.arange(scores.shape[-1]) if keys is None else keys
    with torch.no_grad():
        return normalized(normalizer, scores, keys, _learned(normalizer, row.sizes))


def normalizer_shapes(parts: Parts, cases: Cases) -> None:
    """Weights have the shape and type of the scores and are finite, and a model runs."""
    normalizer = parts.attention.normalizer
    expect(parts.sizes(), "check(sizes) refuses all sizes that are tried")
    for row in cases.each(each_row(parts)):
        tensors = normalizer.learned(row.sizes)
        learned_tensors(normalizer, tensors, rows=row.sizes.heads)
        for scores in (row.scores(), row.masked()[0], row.scores() + LARGE, row.scores() - LARGE):
            weights = _weights(normalizer, row, scores)
            about = f" for scores of about {scores.mean():.0f}" if scores.min() > -torch.inf else ""
            expect(
                weights.isfinite().all(), f"weights() returned values that are not finite{about}"
            )
    model.runs(parts, cases)


def masked_keys(parts: Parts, cases: Cases) -> None:
    """Masked keys have weight 0, and the others what they have without them."""
    normalizer = parts.attention.normalizer
    for row in cases.each(each_row(parts)):
        scores, hidden = row.masked()
        weights = _weights(normalizer, row, scores)
        expect((weights[..., hidden] == 0).all(), "a masked key has weight")
        kept = torch.arange(row.keys)[~hidden]
        alone = _weights(normalizer, row, scores[..., ~hidden], kept)
        what = "weights differ when masked keys are taken away,"
        expect_near(weights[..., ~hidden], alone, what, NEAR)


def empty_rows(parts: Parts, cases: Cases) -> None:
    """A query that sees no key gets zeros and passes no gradient."""
    normalizer = parts.attention.normalizer
    for row in cases.each(each_row(parts)):
        h, keys = row.sizes.heads, row.keys
        draw = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(2, h, keys, 4, generator=draw).requires_grad_() for _ in "qkv")
        mask = torch.ones(2, keys, dtype=torch.bool)
        mask[0] = False
        ids = torch.arange(keys)
        bias = Bias(ids, ids, causal=normalizer.causal_only, key_mask=mask)
        out = attend(q, k, v, normalizer, bias, _learned(normalizer, row.sizes), "reference")
        expect((out[0] == 0).all(), "a query that sees no key does not get zeros")
        out.sum().backward()
        for tensor in (q, k, v):
            expect(tensor.grad.isfinite().all(), "a query that sees no key has a NaN gradient")


def sums_to_one(parts: Parts, cases: Cases) -> None:
    """Rows sum to one."""
    normalizer = parts.attention.normalizer
    _promised(normalizer.rows_sum_to_one, "rows_sum_to_one is False")
    for row in cases.each(each_row(parts)):
        for scores in (row.scores(), row.masked()[0], row.scores() + LARGE, row.scores() - LARGE):
            total = _weights(normalizer, row, scores).sum(dim=-1)
            worst = float((total - 1).abs().max())
            expect(worst <= 1e-4, f"rows_sum_to_one is True, but a row sums to 1 ± {worst:.2g}")


def shift_invariant(parts: Parts, cases: Cases) -> None:
    """A constant added to a row changes nothing."""
    normalizer = parts.attention.normalizer
    _promised(normalizer.shift_invariant, "shift_invariant is False")
    for row in cases.each(each_row(parts)):
        expected = _weights(normalizer, row, row.scores())
        for shift in (3.0, -8.0, LARGE, -LARGE):
            found = _weights(normalizer, row, row.scores() + shift)
            what = f"shift_invariant is True, but weights differ when {shift:g} is added,"
            expect_near(found, expected, what)


def sparse(parts: Parts, cases: Cases) -> None:
    """Scores below `support_edge` have weight 0, whatever other keys a row has."""
    normalizer = parts.attention.normalizer
    _promised(normalizer.sparse, "sparse is False")
    for row in cases.each(each_row(parts)):
        scores, state = row.scores(), _learned(normalizer, row.sizes)
        weights = _weights(normalizer, row, scores)
        for count in range(1, row.keys + 1):
            with torch.no_grad():
                edge = normalizer.support_edge(scores[..., :count], state)
            returned(normalizer, "support_edge", edge, (*scores.shape[:-1], 1))
            below = weights[scores < edge - 1e-4 * (1 + edge.abs())]
            expect((below == 0).all(), "a score below support_edge() has weight")
    for row in cases.each([Row(1, MANY, parts.sizes()[0])]):
        draw = torch.Generator().manual_seed(0)
        scores = -80 * torch.rand(row.scores().shape, generator=draw)
        with torch.no_grad():
            edge = normalizer.support_edge(scores, _learned(normalizer, row.sizes))
        has_zeros = bool((_weights(normalizer, row, scores) == 0).any())
        what = "sparse is True, but of scores from 0 to -80 none has weight 0 or a support_edge()"
        expect(has_zeros or edge.isfinite().any(), what)


def is_softmax(parts: Parts, cases: Cases) -> None:
    """The weights are those of softmax."""
    normalizer = parts.attention.normalizer
    _promised(normalizer.is_softmax, "is_softmax is False")
    for row in cases.each(each_row(parts)):
        expected = row.scores().softmax(dim=-1)
        what = "is_softmax is True, but weights differ from softmax"
        expect_near(_weights(normalizer, row, row.scores()), expected, what, NEAR)


def elementwise(parts: Parts, cases: Cases) -> None:
    """`weights` of some keys are those of all, and what calling the normalizer gives."""
    normalizer = parts.attention.normalizer
    _promised(normalizer.elementwise, "elementwise is False")
    for row in cases.each(each_row(parts)):
        scores, state, keys = row.scores(), _learned(normalizer, row.sizes), torch.arange(row.keys)
        with torch.no_grad():
            statistics = normalizer.row_statistics(scores, keys, state)
            fits = isinstance(statistics, tuple)
            fits = fits and all(s.shape[:-1] == scores.shape[:-1] for s in statistics)
            fits = fits and all(s.shape[-1] in (1, 2) for s in statistics)
            expect(fits, "row_statistics() must return a tuple of tensors [… q 1] or [… q 2]")
            whole = normalizer(scores, keys, state)
            for part in (slice(0, (row.keys + 1) // 2), slice(row.keys // 2, row.keys)):
                found = normalizer.weights(scores[..., part], statistics, keys[part], state)
                what = "weights() of some keys differ from those of the whole row"
                expect_near(found, whole[..., part], what, NEAR)


def own_key(parts: Parts, cases: Cases) -> None:
    """Under a causal mask a query sees its own key, or does not, as `sees_itself` says."""
    normalizer = parts.attention.normalizer
    seen = False
    for row in cases.each(each_row(parts)):
        ids = torch.arange(row.keys)
        draw = torch.Generator().manual_seed(row.keys)
        q, k = (torch.randn(4, row.sizes.heads, row.keys, 4, generator=draw) for _ in "qk")
        state = _learned(normalizer, row.sizes)
        with torch.no_grad():
            weights = attention_weights(q, k, normalizer, Bias(ids, ids), state)
        diagonal = weights.diagonal(dim1=-2, dim2=-1)
        seen = seen or bool((diagonal != 0).any())
        if not normalizer.sees_itself:
            expect((diagonal == 0).all(), "sees_itself is False, but a query's own key has weight")
    if normalizer.sees_itself:
        expect(seen, "sees_itself is True, but no query's own key ever has weight")


def normalizer_gradient(parts: Parts, cases: Cases) -> None:
    """Autograd agrees with finite differences, in scores and learned tensors."""
    normalizer = parts.attention.normalizer
    for row in cases.each(each_row(parts)):
        keys = torch.arange(row.keys)
        for scores in (row.scores(torch.float64), row.masked(torch.float64)[0]):
            state = dict(_learned(normalizer, row.sizes, torch.float64).items())

            def weights(inputs, keys=keys):
                learned = {k: v for k, v in inputs.items() if k != "the scores"}
                return normalizer(inputs["the scores"], keys, learned)

            check_gradients(weights, {"the scores": scores} | state)


def scaling_shapes(parts: Parts, cases: Cases) -> None:
    """A multiplier per query and head, finite from one visible key on, and a model runs."""
    scaling = parts.attention.scaling
    for case in cases.each(model.each_case(parts)):
        for n in _counts(case):
            with torch.no_grad():
                scaler = scaling(_input(case), n, _scaling_state(scaling, case))
            if scaler is not None:
                per_head = case.sizes.heads, case.length
                returned(scaling, "__call__", scaler, per_head, (case.batch, *per_head))
                expect(scaler.isfinite().all(), f"the multiplier is not finite at n = {n.min():g}")
    model.runs(parts, cases)


def scaling_gradient(parts: Parts, cases: Cases) -> None:
    """Autograd agrees with finite differences, in the input and learned tensors."""
    scaling = parts.attention.scaling
    for case in cases.each(model.each_case(parts, (1, 2, 5))):
        for n in _counts(case, torch.float64):

            def multiplier(inputs, n=n):
                learned = {k: v for k, v in inputs.items() if k != "x"}
                scaler = scaling(inputs["x"], n, learned)
                return torch.ones(1, dtype=torch.float64) if scaler is None else scaler

            state = dict(_scaling_state(scaling, case, torch.float64).items())
            check_gradients(multiplier, {"x": _input(case, torch.float64)} | state)


def _counts(case: model.Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """n as causal attention and as padded full attention give it."""
    rising = torch.arange(1, case.length + 1, dtype=dtype)
    rows = torch.arange(case.length, case.length + case.batch, dtype=dtype)
    return [rising, rows[:, None].expand(case.batch, case.length)]


def _scaling_state(scaling: Any, case: model.Case, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return state_of(scaling, scaling.learned(case.sizes.heads, case.sizes.d_model), dtype)


def _input(case: model.Case, dtype: torch.dtype = torch.float32) -> Tensor:
    draw = torch.Generator().manual_seed(case.length)
    shape = case.batch, case.length, case.sizes.d_model
    return torch.randn(shape, generator=draw, dtype=dtype)


def norm_shapes(parts: Parts, cases: Cases) -> None:
    """The heads keep their shape and type, zeros stay finite, and a model runs."""
    norm = parts.attention.output_norm
    for case in cases.each(model.each_case(parts)):
        state = _norm_state(norm, case)
        for x in (_input(case), torch.zeros_like(_input(case)), _input(case).bfloat16()):
            with torch.no_grad():
                out = returned(norm, "__call__", norm(x, state), x.shape)
            expect(out.dtype == x.dtype, f"{x.dtype} became {out.dtype}")
            expect(out.isfinite().all(), "the output is not finite")
    model.runs(parts, cases)


def norm_gradient(parts: Parts, cases: Cases) -> None:
    """Autograd agrees with finite differences, in the heads and learned tensors."""
    norm = parts.attention.output_norm
    for case in cases.each(model.each_case(parts, (1, 2, 5))):

        def normed(inputs):
            return norm(inputs["x"], {k: v for k, v in inputs.items() if k != "x"})

        state = dict(_norm_state(norm, case, torch.float64).items())
        check_gradients(normed, {"x": _input(case, torch.float64)} | state)


def _norm_state(norm: Any, case: model.Case, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return state_of(norm, norm.learned(case.sizes.d_model), dtype)


def _promised(promise: bool, reason: str) -> None:
    if not promise:
        raise DoesNotApply(reason)


def subjects(attention: Attention) -> Iterator[tuple[str, Parts, dict[str, Property]]]:
    """Each choice of an attention by its kind, in a model of its own, and its properties."""
    groups = {"normalizer": NORMALIZER, "scaling": SCALING, "output_norm": NORM}
    for kind, properties in groups.items():
        choice = getattr(attention, kind)
        if choice.name != "none":
            yield kind, Parts(choice, Attention(**{kind: choice}), NoPE()), properties


NORMALIZER: dict[str, Property] = {
    "shapes": normalizer_shapes,
    "masked keys": masked_keys,
    "empty rows": empty_rows,
    "sums to one": sums_to_one,
    "shift-invariant": shift_invariant,
    "sparse": sparse,
    "is softmax": is_softmax,
    "elementwise": elementwise,
    "own key": own_key,
    "gradient": normalizer_gradient,
} | model.PROPERTIES
SCALING = {"shapes": scaling_shapes, "gradient": scaling_gradient} | model.PROPERTIES
NORM = {"shapes": norm_shapes, "gradient": norm_gradient} | model.PROPERTIES
