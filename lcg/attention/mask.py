# ruff: noqa: F722  (shapes in annotations)
"""The bias that is added to the scores q·k/√d, and the mask of who may see whom.

Shapes: b batch, h heads, q queries, k keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

import lcg.mkl_workaround  # noqa: F401  (before anything is computed)
from lcg.shapes import Bool, Float, Shaped

Learned = Mapping[str, Tensor] | nn.ParameterDict
Additive = Callable[[slice, slice, Learned], Tensor | None]
ALL = slice(None)
"""Every query, key or head, where some may be selected."""


class Bias(NamedTuple):
    """The additive part of the scores, and the keys that a query sees.

    slopes [h] gives -m·|i - j|. additive(queries, keys, additive_learned) is any other bias of
    these queries and keys, broadcastable to [b h q k], or None; it is asked for a part at a time,
    so that nobody needs the whole, and gets what it learned handed in.

    A query sees keys at positions up to its own (`causal`; strictly below it unless it
    `sees_itself`), and among them those of key_mask [b k]. Positions of keys increase, and the
    first key does not come after a query: one that sees no key is known by the mask alone.
    """

    q_positions: Shaped[Tensor, " q"]
    k_positions: Shaped[Tensor, " k"]
    slopes: Float[Tensor, " h"] | None = None
    additive: Additive | None = None
    additive_learned: Learned = {}
    causal: bool = True
    key_mask: Bool[Tensor, "b k"] | None = None

    def crop(self, queries: slice = ALL, keys: slice = ALL, heads: slice = ALL) -> Bias:
        """The same for some of the queries, keys and heads; slices with a start and a stop."""
        return self._replace(
            q_positions=self.q_positions[queries],
            k_positions=self.k_positions[keys],
            slopes=None if self.slopes is None else self.slopes[heads],
            additive=None if self.additive is None else _crop(self.additive, queries, keys, heads),
            key_mask=None if self.key_mask is None else self.key_mask[:, keys],
        )

    def add_to(self, scores: Float[Tensor, "b h q k"], sees_itself: bool = True) -> Tensor | None:
        """Add everything to float32 scores in place, -inf where a key is not visible.

        Returns which queries see no key at all, [.. q 1], or None if that cannot be; their scores
        are 0, so that no normalizer divides by zero, and their weights must be dropped.
        """
        if self.slopes is not None and scores.numel():
            # In float32, half as large as integers, and exact where positions span up to 2²⁴.
            start = self.k_positions[:1]
            at, key_at = (self.q_positions - start).float(), (self.k_positions - start).float()
            distance = (at[:, None] - key_at).abs_()
            scores.addcmul_(self.slopes.float()[:, None, None], distance, value=-1)
        if self.additive is not None:
            more = self.additive(ALL, ALL, self.additive_learned)
            scores += 0 if more is None else more.float()
        if self.causal and self.key_mask is None and sees_itself:
            first = self._seen_by_all()  # most keys of a long row: nothing to hide there
            scores[..., first:].masked_fill_(
                self.q_positions[:, None] < self.k_positions[first:], -torch.inf
            )
            return None  # a query sees at least itself
        hidden = None
        if self.causal:
            distance = self.q_positions[:, None] - self.k_positions
            hidden = distance < 0 if sees_itself else distance <= 0
        if self.key_mask is not None:
            padded = ~self.key_mask[:, None, None, :]
            hidden = padded if hidden is None else padded | hidden
        if hidden is None:
            return None
        scores.masked_fill_(hidden, -torch.inf)
        blind = hidden.all(dim=-1, keepdim=True)
        scores.masked_fill_(blind, 0.0)
        return blind

    def _seen_by_all(self) -> int:
        """Count the first keys that all queries see; 0 where asking costs more than it saves."""
        if self.k_positions.device.type != "cpu" or len(self.k_positions) < 512:
            return 0
        return int(torch.searchsorted(self.k_positions, self.q_positions.min(), right=True))


def _crop(additive: Additive, queries: slice, keys: slice, heads: slice) -> Additive:
    def cropped(some_queries: slice, some_keys: slice, learned: Learned):
        found = additive(_inside(queries, some_queries), _inside(keys, some_keys), learned)
        if found is None or heads == ALL or found.dim() < 3 or found.shape[-3] == 1:
            return found
        return found[..., heads, :, :]

    return cropped


def _inside(outer: slice, inner: slice) -> slice:
    """outer, then inner of what outer gives."""
    if inner == ALL or outer == ALL:
        return outer if inner == ALL else inner
    start = outer.start or 0
    return slice(start + (inner.start or 0), min(outer.stop, start + inner.stop))
