# ruff: noqa: F722  (shapes in annotations)
"""From the products q·k to the scores: scale, bias and mask.

Shapes: b batch, h heads, g key heads, q queries, k keys, d head dimension, n distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, no_type_check

import torch
from torch import Tensor, nn

import lcg.mkl_workaround  # noqa: F401  (before anything is computed)
from lcg.positional.base import Tile
from lcg.shapes import Bool, Float, Int, Shaped

Learned = Mapping[str, Tensor] | nn.ParameterDict
Additive = Callable[[Tile, Learned], Tensor | None]
ScoreMap = Callable[[Tensor, Tile, Learned], Tensor]
ALL = slice(None)
"""Every query, key or head, where some may be selected."""
ROWS = 128
"""Rows whose separable bias is taken relative to one of them."""


class Bias(NamedTuple):
    """The rule that maps products to scores, and the keys that a query sees.

    scores = score_map(softcap(scale · q·k)) + the biases that are set:

    - slopes [h]: -m·|i - j|
    - table [h n]: the entry of distance i - j; the first column is that of table_start
    - rows [b h q] and columns [b h k]: u_i + w_j
    - additive(tile, learned): any other, broadcastable to [b h q k], or None

    softcap c maps z to c·tanh(z/c). i and j are position ids, q_ids [q] or [b q] and k_ids [k] or
    [b k]; None: the positions. additive and score_map are called for one tile at a time, with their
    learned tensors and the states of queries and keys, so that nothing is materialised as a whole.

    A query sees keys at positions up to its own (`causal`; strictly before it unless it
    `sees_itself`), within its window [h], and not masked by key_mask [b k]. Positions give the
    order of tokens: those of keys increase, and the first key does not come after a query, so a
    query without keys can be recognised from the mask alone.
    """

    q_positions: Shaped[Tensor, " q"]
    k_positions: Shaped[Tensor, " k"]
    slopes: Float[Tensor, " h"] | None = None
    additive: Additive | None = None
    causal: bool = True
    key_mask: Bool[Tensor, "b k"] | None = None
    scale: float | None = None
    """None: 1/√d."""
    q_ids: Shaped[Tensor, "... q"] | None = None
    k_ids: Shaped[Tensor, "... k"] | None = None
    table: Float[Tensor, "h n"] | None = None
    table_start: int = 0
    rows: Float[Tensor, "b h q"] | None = None
    columns: Float[Tensor, "b h k"] | None = None
    score_map: ScoreMap | None = None
    window: Int[Tensor, " h"] | None = None
    softcap: float | None = None
    learned: Learned = {}
    q_state: Learned = {}
    k_state: Learned = {}

    @property
    def hooked(self) -> bool:
        """True when a function computes part of the scores, for all heads at once."""
        return self.additive is not None or self.score_map is not None

    @no_type_check  # by what enforces shapes in tests: torch.compile follows this one
    def scale_for(self, q: Tensor) -> float:
        """Return the factor of the products."""
        return 1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale

    def capped(self, scores: Tensor) -> Tensor:
        """Return the scores within the soft cap; if there is one, the argument is overwritten."""
        if self.softcap is None:
            return scores
        return self.softcap * scores.div_(self.softcap).tanh_()

    def crop(self, queries: slice | Tensor = ALL, keys: slice = ALL, heads: slice = ALL) -> Bias:
        """Return the bias of some of the queries, keys and heads.

        Functions compute all heads at once, so heads cannot be cropped if there are functions.
        """
        of_queries, of_keys = (..., queries), (..., keys)
        per_head = (slice(None), heads)
        return self._replace(
            q_positions=self.q_positions[queries],
            k_positions=self.k_positions[keys],
            slopes=_part(self.slopes, heads),
            key_mask=_part(self.key_mask, of_keys),
            q_ids=_part(self.q_ids, of_queries),
            k_ids=_part(self.k_ids, of_keys),
            table=_part(self.table, heads),
            rows=_part(self.rows, (*per_head, queries)),
            columns=_part(self.columns, (*per_head, keys)),
            window=_part(self.window, heads),
            q_state={name: state[:, :, queries] for name, state in self.q_state.items()},
            k_state={name: state[:, :, keys] for name, state in self.k_state.items()},
        )

    def tensors(self) -> dict[tuple[str, str], Tensor]:
        """Return the tensors in which scores are differentiable, by field and name."""
        single = {(name, ""): getattr(self, name) for name in SINGLE}
        named = {(field, name): t for field in NAMED for name, t in getattr(self, field).items()}
        return {key: tensor for key, tensor in (single | named).items() if tensor is not None}

    def with_tensors(self, tensors: Mapping[tuple[str, str], Tensor]) -> Bias:
        """Return the bias with these tensors replaced."""
        single = {field: tensor for (field, name), tensor in tensors.items() if not name}
        named = {
            field: {name: tensor for (own, name), tensor in tensors.items() if own == field}
            for field in NAMED
        }
        return self._replace(**single, **named)

    def tile(self, q: Float[Tensor, "b h q d"], k: Float[Tensor, "b g k d"]) -> Tile:
        """Return the inputs of `additive` and `score_map`, without hidden keys."""
        q_ids, k_ids = self.ids()
        if k_ids.dim() > 1:
            q_ids, k_ids = q_ids[:, None], k_ids[:, None, None]
        return Tile(q_ids[..., None], k_ids, q, k, self.q_state, self.k_state)

    def ids(self) -> tuple[Tensor, Tensor]:
        """Return the ids of queries and keys, [q] and [k] or [b q] and [b k]."""
        if self.q_ids is None:
            return self.q_positions, self.k_positions
        return self.q_ids, self.k_ids

    def scores(
        self,
        products: Float[Tensor, "... q k"],
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b g k d"],
        sees_itself: bool = True,
    ) -> tuple[Float[Tensor, "... q k"], Tensor | None]:
        """Compute scores in place from scaled float32 products, -inf on hidden keys.

        Also returns which queries see no key, [.. q 1], or None if there can be none. Their scores
        are 0, so that no normalizer divides by zero, and their weights must be dropped.
        """
        scores, tile = self.capped(products), None
        if self.hooked:
            tile = self.tile(q, k)._replace(hidden=self.hidden(sees_itself))
        if self.score_map is not None:
            scores = self.score_map(scores, tile, self.learned)
        self._add_slopes(scores)
        if self.table is not None:
            scores += self._of_table()
        if self.rows is not None:
            self._add_separable(scores)
        if self.additive is not None:
            more = self.additive(tile, self.learned)
            scores += 0 if more is None else more.float()
        if self._sees_at_least_itself(sees_itself):
            first = self._seen_by_all()  # most keys of a long row: nothing to hide there
            scores[..., first:].masked_fill_(
                self.q_positions[:, None] < self.k_positions[first:], -torch.inf
            )
            return scores, None
        hidden = self.hidden(sees_itself)
        if hidden is None:
            return scores, None
        scores.masked_fill_(hidden, -torch.inf)
        blind = hidden.all(dim=-1, keepdim=True)
        scores.masked_fill_(blind, 0.0)
        return scores, blind

    def _sees_at_least_itself(self, sees_itself: bool) -> bool:
        return self.causal and sees_itself and self.key_mask is None and self.window is None

    def hidden(self, sees_itself: bool = True) -> Bool[Tensor, "... q k"] | None:
        """Return True on hidden keys, broadcastable to [b h q k]; None if none is hidden."""
        hidden = None
        if self.causal or self.window is not None:
            distance = self.q_positions[:, None] - self.k_positions
        if self.causal:
            hidden = distance < 0 if sees_itself else distance <= 0
        if self.window is not None:
            far = distance.abs() >= self.window[:, None, None]
            hidden = far if hidden is None else far | hidden
        if self.key_mask is not None:
            padded = ~self.key_mask[:, None, None, :]
            hidden = padded if hidden is None else padded | hidden
        return hidden

    def _add_slopes(self, scores: Tensor) -> None:
        if self.slopes is None or not scores.numel():
            return
        # In float32, half as large as integers, and exact where ids span up to 2²⁴.
        q_ids, k_ids = self.ids()
        start = k_ids[..., :1]
        distance = (
            (q_ids - start).float()[..., None] - (k_ids - start).float()[..., None, :]
        ).abs_()
        slopes = self.slopes.float()[:, None, None]
        scores.addcmul_(slopes, distance if distance.dim() == 2 else distance[:, None], value=-1)

    def _of_table(self) -> Tensor:
        """Return the bias of the table [h q k], or [b h q k]."""
        q_ids, k_ids = self.ids()
        column = (q_ids[..., None] - k_ids[..., None, :] - self.table_start).long()
        column = column.clamp(0, self.table.shape[1] - 1)  # of what is hidden
        return torch.nn.functional.embedding(column, self.table.float().mT).movedim(-1, -3)

    def _add_separable(self, scores: Tensor) -> None:
        """Add u_i + w_j, both relative to a row nearby.

        Sums over many tokens are large, but only their small differences matter; relative to a row
        nearby float32 resolves them.
        """
        for some in slices(scores.shape[2], ROWS):
            u = self.rows[:, :, some].double()
            shift = u[..., :1].detach()
            part = scores[:, :, some]
            part += (u - shift).float()[..., None]
            part += (self.columns.double() + shift).float()[..., None, :]

    def _seen_by_all(self) -> int:
        """Return how many of the first keys all queries see; 0 if computing it would not pay."""
        if self.k_positions.device.type != "cpu" or len(self.k_positions) < 512:
            return 0
        return int(torch.searchsorted(self.k_positions, self.q_positions.min(), right=True))


SINGLE = ("slopes", "table", "rows", "columns")
NAMED = ("learned", "q_state", "k_state")


def slices(count: int, size: int) -> Iterator[slice]:
    """Cut 0 … count - 1 into runs of at most `size`."""
    return (slice(start, min(count, start + size)) for start in range(0, count, size))


def _part(tensor: Tensor | None, index) -> Tensor | None:
    return None if tensor is None else tensor[index]
