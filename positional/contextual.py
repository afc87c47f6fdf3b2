"""Encodings that read queries, keys or scores: Transformer-XL, CoPE and DAPE."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from lcg.positional.base import PositionEncoding, torch
from lcg.positional.distance import KERPLE, angles, whole_distances
from lcg.positional.wrappers import Wrapper


@dataclass
class TransformerXL(PositionEncoding):
    """Scores are ((q_i + u)·k_j + (q_i + v)·W·R_(i-j))/√d (1901.02860).

    u and v [h d] are learned per head, and so is W [h d w]; R_δ is the sinusoid of width w, the
    model's, at distance δ: first its sines, then its cosines. u and v start at 0, W from N(0, 1/w).
    A length scaling multiplies q alone. Differs from the paper's code in that distances have no
    upper bound.
    """

    name: ClassVar[str] = "transformer_xl"

    base: float = 10000.0
    """Wavelengths run from 2π to 2π·base tokens."""

    def __post_init__(self) -> None:
        if not 1 < self.base < math.inf:
            raise ValueError(f"transformer_xl: base must be over 1 and finite, got {self.base}")

    def learned(self, sizes):
        shape = sizes.heads, sizes.head_dim
        w = torch.randn(*shape, sizes.d_model) / sizes.d_model**0.5
        return {"u": torch.zeros(shape), "v": torch.zeros(shape), "w": w}

    def bias(self, tile, learned):
        distances, places = whole_distances(self.name, tile.distance)
        u, v, w = (learned[name].float() for name in ("u", "v", "w"))
        d, shared = u.shape[-1], tile.q.shape[1] // tile.k.shape[1]
        q, k = (t[..., :d].float() for t in (tile.q, tile.k))  # d: less where a group is wider
        with torch.autocast(q.device.type, enabled=False):  # bfloat16 knows no neighbours far away
            of_keys = u[:, None] @ k.repeat_interleave(shared, dim=1).mT  # [b h 1 k]
            of_distances = (q + v[:, None]) @ (w @ self._waves(distances, w.shape[-1]))
        of_distances = of_distances.gather(-1, places.expand(*q.shape[:3], -1))
        return (of_keys + of_distances) / math.sqrt(d)

    def _waves(self, distances, width):
        """R [width n] at distances [n]."""
        turns = angles(distances, width, self.base).mT
        return torch.cat([turns.sin(), turns.cos()])[:width].float().to(distances.device)


@dataclass
class CoPE(PositionEncoding):
    """Scores get q_i·E[p_ij], p_ij = min(P - 1, Σ σ(s_iu)), u from key j to i (2405.18719).

    E [P d] is learned, 0 at the start, and interpolated between whole numbers. The gates σ(s) are
    those of scores with their 1/√d. A length scaling multiplies q and s here too.
    """

    name: ClassVar[str] = "cope"
    causal_only: ClassVar[bool] = True

    most: int = 64
    """P, the number of positions; what is further shares the last."""

    def __post_init__(self) -> None:
        if self.most < 2:
            raise ValueError(f"cope: most must be at least 2, got {self.most}")

    def learned(self, sizes):
        return {"e": torch.zeros(self.most, sizes.head_dim)}

    def map_scores(self, scores, tile, learned):
        e, gates = learned["e"].float(), scores.sigmoid()
        if tile.hidden is not None:
            gates = gates.masked_fill(tile.hidden, 0.0)
        at = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=self.most - 1)
        with torch.autocast(scores.device.type, enabled=False):
            of_each = tile.q[..., : e.shape[-1]].float() @ e.mT  # [b h q most]
        low, high = (of_each.gather(-1, part.long()) for part in (at.floor(), at.ceil()))
        return scores + low + (at - at.floor()) * (high - low)


ADDITIVE = ("slopes", "table", "separable", "bias")
"""The hooks by which an encoding adds to the scores."""


@dataclass
class DAPE(Wrapper):
    """Scores become s + B + f([s; B]), B the bias of the encoding within (2405.14722).

    f takes the scores and the biases of all heads for one query and key, 2H → `hidden` LeakyReLUs
    of slope 0.01 → H, both layers with a bias and torch's initial values.
    """

    name: ClassVar[str] = "dape"

    inner: PositionEncoding = field(default_factory=KERPLE)
    """The encoding within, which adds B: alibi, t5, kerple, fire, …"""
    hidden: int = 32
    """Hidden width of f."""

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"dape: hidden must be at least 1, got {self.hidden}")

    def has(self, hook: str) -> bool:
        return hook not in ADDITIVE and super().has(hook)

    def check(self, sizes):
        if self.inner.has("map_scores") or not any(map(self.inner.has, ADDITIVE)):
            raise ValueError(
                f"dape: inner={self.inner.name} must add a bias to the scores and not change them; "
                "use alibi, t5, kerple or the like"
            )
        super().check(sizes)

    def learned(self, sizes):
        inner = torch.nn.Linear(2 * sizes.heads, self.hidden)
        outer = torch.nn.Linear(self.hidden, sizes.heads)
        tensors = {"dape_inner": inner.weight, "dape_inner_bias": inner.bias}
        tensors |= {"dape_outer": outer.weight, "dape_outer_bias": outer.bias}
        return super().learned(sizes) | {name: t.detach() for name, t in tensors.items()}

    def slopes(self, heads):
        return None  # they are in B

    def bias(self, tile, learned):
        return None

    def map_scores(self, scores, tile, learned):
        own = {name: t.to(scores) for name, t in learned.items() if name.startswith("dape_")}
        biased = scores + (bias := self._bias(scores, tile, learned))
        both = torch.cat([scores, bias], dim=1).movedim(1, -1)
        linear, leaky_relu = torch.nn.functional.linear, torch.nn.functional.leaky_relu
        with torch.autocast(scores.device.type, enabled=False):
            hidden = leaky_relu(linear(both, own["dape_inner"], own["dape_inner_bias"]))
            return biased + linear(hidden, own["dape_outer"], own["dape_outer_bias"]).movedim(-1, 1)

    def _bias(self, scores, tile, learned):
        """B [b h q k], whatever the forms of its parts."""
        inner, found = self.inner, torch.zeros_like(scores)
        if inner.has("slopes"):
            slopes = inner.slopes(scores.shape[1]).to(scores.device)
            found = found - slopes[:, None, None] * tile.distance.abs()
        if inner.has("table"):
            distances, places = whole_distances(self.name, tile.distance)
            places = places[:, 0] if places.dim() > 2 else places  # [b q k] or [q k]
            table = inner.table(distances, learned).float()
            found = found + torch.nn.functional.embedding(places, table.mT).movedim(-1, -3)
        if inner.has("separable"):
            rows, columns = inner.separable(tile.q_state, tile.k_state)
            found = found + (rows[..., None] + columns[..., None, :]).float()
        bias = inner.bias(tile, learned)
        return found if bias is None else found + bias.float()
