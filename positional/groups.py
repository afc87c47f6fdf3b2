"""Encodings made of other encodings: groups of heads, such as NAPE, and patterns over layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from lcg.positional.base import ORDERING, PositionEncoding, Sizes, Tile, torch
from lcg.positional.nope import NoPE
from lcg.positional.slopes import ALiBi

if TYPE_CHECKING:
    from torch import Tensor

Named = Mapping[str, Any]


class Group(NamedTuple):
    """Some heads with their own encoding. prefix: that of its learned tensors and states."""

    encoding: PositionEncoding
    heads: slice
    prefix: str

    def own(self, tensors: Named) -> dict[str, Any]:
        """Return the tensors of this group."""
        return own_of(self.prefix, tensors)

    def states(self, tensors: Named) -> dict[str, Tensor]:
        """Return the states of this group, for its heads."""
        return {name: t[:, self.heads] for name, t in self.own(tensors).items()}

    def tile(self, tile: Tile, heads: int) -> Tile:
        """Return the tile as the encoding of this group sees it."""
        hidden = tile.hidden
        if hidden is not None and hidden.dim() > 2 and hidden.shape[-3] > 1:
            hidden = hidden[..., self.heads, :, :]
        return tile._replace(
            q=tile.q[:, self.heads],
            k=tile.k[:, key_heads(self.heads, heads, tile.k.shape[1])],
            q_state=self.states(tile.q_state),
            k_state=self.states(tile.k_state),
            hidden=hidden,
        )


def own_of(prefix: str, tensors: Named) -> dict[str, Any]:
    """Return the tensors whose names have a prefix, by their names without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in names}


def key_heads(heads: slice, count: int, kv_count: int) -> slice:
    """Return the key heads that a group of `count` query heads reads."""
    shared = count // kv_count
    return slice(heads.start // shared, heads.stop // shared)


class Grouped(PositionEncoding):
    """Groups of heads, each with its own encoding.

    A length scaling applies to the heads without information on order; if there are none, to the
    heads that the encodings of the groups declare.
    """

    def encodings(self) -> list[PositionEncoding]:
        """Return the encodings of the groups, in the order of heads."""
        raise NotImplementedError

    def counts(self, heads: int) -> list[int]:
        """The number of heads of each group."""
        raise NotImplementedError

    def heads_in_all(self, group: int, heads: int) -> int:
        """The number of heads of a layer whose group of that number has so many."""
        raise NotImplementedError

    def groups(self, heads: int) -> Iterator[Group]:
        """Return the groups of a layer with this number of heads."""
        counts = self.counts(heads)
        ends = accumulate(counts)
        for i, encoding in enumerate(self.encodings()):
            end = next(ends)
            yield Group(encoding, slice(end - counts[i], end), f"group{i}_")

    def has(self, hook: str) -> bool:
        return self._hooks[hook]

    @cached_property
    def _hooks(self) -> dict[str, bool]:
        """Has every hook: they are asked for often, and nothing may change in a compiled step."""
        hooks = [name for name, value in vars(PositionEncoding).items() if callable(value)]
        return {hook: any(own.has(hook) for own in self.encodings()) for hook in hooks}

    @property
    def relative(self) -> bool:
        return all(encoding.relative for encoding in self.encodings())

    @property
    def cumulative(self) -> tuple[str, ...]:
        return self._prefixed("cumulative")

    @property
    def shared(self) -> tuple[str, ...]:
        return self._prefixed("shared")

    @property
    def causal_only(self) -> bool:
        return any(encoding.causal_only for encoding in self.encodings())

    @property
    def widens(self) -> bool:
        return any(encoding.widens for encoding in self.encodings())

    def _prefixed(self, attribute: str) -> tuple[str, ...]:
        """The names that the encodings of the groups have there, as those of all groups."""
        names = enumerate(getattr(encoding, attribute) for encoding in self.encodings())
        return tuple(f"group{i}_{name}" for i, some in names for name in some)

    def check(self, sizes: Sizes) -> None:
        shared = sizes.heads // sizes.kv_heads
        for group in self.groups(sizes.heads):
            count = group.heads.stop - group.heads.start
            if count % shared:
                raise ValueError(
                    f"{self.name}: its {count} {group.encoding.name} heads must be whole groups of "
                    f"shared key heads, but model.kv_heads={sizes.kv_heads} makes groups of "
                    f"{shared}"
                )
            group.encoding.check(_of_group(sizes, group))

    def check_ids(self, counts: Sequence[int]) -> None:
        for encoding in self.encodings():
            encoding.check_ids(counts)

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        return {
            group.prefix + name: tensor
            for group in self.groups(sizes.heads)
            for name, tensor in group.encoding.learned(_of_group(sizes, group)).items()
        }

    def learned_embedding(self, sizes: Sizes) -> dict[str, Tensor]:
        return _embedding_tensors(self.encodings(), sizes)

    def embed(self, x: Tensor, ids: Tensor, learned: Named) -> Tensor:
        return _embed(self.encodings(), x, ids, learned)

    def positions(self, length: int, device: Any = None) -> Tensor:
        return _only(self, "positions", self.encodings()).positions(length, device=device)

    def draw_positions(self, rng, lengths, training):
        encoding = _only(self, "draw_positions", self.encodings())
        return encoding.draw_positions(rng, lengths, training)

    def rotate_queries(self, q: Tensor, ids: Tensor, learned: Named) -> Tensor:
        if not self.has("rotate_queries"):
            return q
        groups = self.groups(q.shape[1])
        turned = [g.encoding.rotate_queries(q[:, g.heads], ids, g.own(learned)) for g in groups]
        return _of_one_width(turned)

    def rotate_keys(self, k: Tensor, ids: Tensor, learned: Named) -> Tensor:
        if not self.has("rotate_keys"):
            return k
        kv_heads = k.shape[1]
        turned = [
            group.encoding.rotate_keys(k[:, group.heads], ids, group.own(learned))
            for group in self.groups(kv_heads)
        ]
        return _of_one_width(turned)

    def slopes(self, heads: int) -> Tensor | None:
        if not self.has("slopes"):
            return None
        found = ((g.encoding.slopes(n), n) for g, n in self._sized(heads))
        return torch.cat([torch.zeros(n) if own is None else own for own, n in found])

    def window(self, heads: int) -> list[int | None] | None:
        if not self.has("window"):
            return None
        found = ((g.encoding.window(n), n) for g, n in self._sized(heads))
        return [size for own, n in found for size in (own or [None] * n)]

    def scaled_heads(self, heads: int) -> list[int]:
        groups = list(self._sized(heads))
        free = [g for g, _ in groups if not g.encoding.ordered]
        if free:
            return [h for g in free for h in range(g.heads.start, g.heads.stop)]
        return [g.heads.start + h for g, n in groups for h in g.encoding.scaled_heads(n)]

    def state(self, x: Tensor, learned: Named) -> dict[str, Tensor]:
        found = {}
        for i, encoding in enumerate(self.encodings()):
            prefix = f"group{i}_"
            own = encoding.state(x, own_of(prefix, learned))
            for name, tensor in own.items():
                heads = self.heads_in_all(i, tensor.shape[1])
                whole = tensor.new_zeros(len(x), heads, x.shape[1])
                whole[:, list(self.groups(heads))[i].heads] = tensor
                found[prefix + name] = whole
        return found

    def table(self, distances: Tensor, learned: Named) -> Tensor:
        found = {}
        for i, encoding in enumerate(self.encodings()):
            if encoding.has("table"):
                found[i] = encoding.table(distances, own_of(f"group{i}_", learned))
        first, some = next(iter(found.items()))
        groups = enumerate(self._sized(self.heads_in_all(first, len(some))))
        return torch.cat([found.get(i, some.new_zeros(n, len(distances))) for i, (_, n) in groups])

    def separable(self, q_state: Named, k_state: Named) -> tuple[Tensor, Tensor]:
        some = next(iter(q_state.values())), next(iter(k_state.values()))
        rows, columns = (torch.zeros_like(state) for state in some)
        for group in self.groups(rows.shape[1]):
            if group.encoding.has("separable"):
                own = group.encoding.separable(group.states(q_state), group.states(k_state))
                rows[:, group.heads], columns[:, group.heads] = own
        return rows, columns

    def bias(self, tile: Tile, learned: Named) -> Tensor | None:
        b, heads, queries, _ = tile.q.shape
        found = torch.zeros(b, heads, queries, tile.k.shape[2], device=tile.q.device)
        for group in self.groups(heads):
            own = group.encoding.bias(group.tile(tile, heads), group.own(learned))
            if own is not None:
                found[:, group.heads] += own
        return found

    def map_scores(self, scores: Tensor, tile: Tile, learned: Named) -> Tensor:
        heads = scores.shape[1]
        mapped = [
            g.encoding.map_scores(scores[:, g.heads], g.tile(tile, heads), g.own(learned))
            for g in self.groups(heads)
        ]
        return torch.cat(mapped, dim=1)

    def _sized(self, heads: int) -> list[tuple[Group, int]]:
        return [(group, group.heads.stop - group.heads.start) for group in self.groups(heads)]


def _of_one_width(parts: list[Tensor]) -> Tensor:
    """Join the heads of all groups, padded with zeros, which change no product, to one width."""
    width = max(part.shape[-1] for part in parts)
    pad = torch.nn.functional.pad
    return torch.cat([pad(part, (0, width - part.shape[-1])) for part in parts], dim=1)


def _of_group(sizes: Sizes, group: Group) -> Sizes:
    count = group.heads.stop - group.heads.start
    return sizes._replace(heads=count, kv_heads=count * sizes.kv_heads // sizes.heads)


def _only(owner: Any, hook: str, encodings: list[PositionEncoding]) -> PositionEncoding:
    """Return the one encoding that overrides a hook which a model can have only once."""
    found = [encoding for encoding in encodings if encoding.has(hook)]
    if len({repr(encoding) for encoding in found}) > 1:
        names = " and ".join(encoding.name for encoding in found)
        raise ValueError(f"{owner.name}: {names} have position ids of their own; use one of them")
    return (found or encodings)[0]


@dataclass
class Heads(Grouped):
    """Groups of heads, each with its own encoding: `position=alibi:4+nope:4`."""

    name: ClassVar[str] = "heads"

    groups_of: list[PositionEncoding] = field(default_factory=lambda: [NoPE()])
    """The encoding of each group."""
    sizes: list[int] = field(default_factory=list)
    """The number of heads of each group; empty: equal shares."""

    def __post_init__(self) -> None:
        if not self.groups_of:
            raise ValueError("heads: groups_of is empty, give at least one encoding")
        self.sizes = self.sizes or [1] * len(self.groups_of)
        if len(self.sizes) != len(self.groups_of) or min(self.sizes) < 1:
            raise ValueError(
                f"heads: sizes={self.sizes} must give each of the {len(self.groups_of)} encodings "
                "of groups_of a share of the heads"
            )

    def encodings(self) -> list[PositionEncoding]:
        return self.groups_of

    def counts(self, heads: int) -> list[int]:
        return [size * heads // sum(self.sizes) for size in self.sizes]

    def heads_in_all(self, group: int, heads: int) -> int:
        return heads * sum(self.sizes) // self.sizes[group]

    def check(self, sizes: Sizes) -> None:
        if sizes.heads % sum(self.sizes):
            raise ValueError(
                f"heads: sizes={self.sizes} are shares of {sum(self.sizes)}, which model.heads="
                f"{sizes.heads} are not a multiple of"
            )
        super().check(sizes)


@dataclass
class NAPE(Grouped):
    """The first ⌈H/2⌉ heads get ALiBi slopes, the others no position at all (2506.16640).

    Slopes are 1/h (`linear`) or 2^-(h-1) (`exponential`), h = 1 … ⌈H/2⌉. A length scaling applies
    to the heads without position only. The paper has even H; the split of odd H is ours.
    """

    name: ClassVar[str] = "nape"

    variant: Literal["linear", "exponential"] = "linear"
    """Sequence of slopes over the ALiBi heads."""

    def check(self, sizes: Sizes) -> None:
        if sizes.heads < 2:
            raise ValueError("nape: needs at least 2 heads, one with and one without slopes")
        super().check(sizes)

    def encodings(self) -> list[PositionEncoding]:
        return [ALiBi(self.variant), NoPE()]

    def counts(self, heads: int) -> list[int]:
        return [(heads + 1) // 2, heads // 2]


@dataclass
class Layers(PositionEncoding):
    """Layers with different encodings, in a repeating pattern: `position=[rope,rope,rope,nope]`.

    `of_layer` returns the encoding of a layer, with its hooks. Ids and the embedding, which a model
    has only once, come from the encodings that define them.
    """

    name: ClassVar[str] = "layers"

    pattern: list[PositionEncoding] = field(default_factory=lambda: [NoPE()])
    """The encoding of each layer."""

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("layers: pattern is empty, give at least one encoding")

    def of_layer(self, layer: int) -> PositionEncoding:
        return self.pattern[layer % len(self.pattern)]

    @property
    def embedding_alone(self) -> PositionEncoding | None:
        """The one encoding of the pattern that does anything, if all that it does is to embed."""
        acting = [own for own in self.pattern if any(own.has(hook) for hook in ACTING)]
        if any(own != acting[0] for own in acting):
            return None
        return next((own for own in acting if not any(map(own.has, ACTING - {"embed"}))), None)

    @property
    def relative(self) -> bool:
        return all(encoding.relative for encoding in self.pattern)

    @property
    def causal_only(self) -> bool:
        return any(encoding.causal_only for encoding in self.pattern)

    @property
    def widens(self) -> bool:
        return any(encoding.widens for encoding in self.pattern)

    def has(self, hook: str) -> bool:
        return any(encoding.has(hook) for encoding in self.pattern)

    def check(self, sizes: Sizes) -> None:
        for encoding in self.pattern:
            encoding.check(sizes)

    def check_ids(self, counts: Sequence[int]) -> None:
        for encoding in self.pattern:
            encoding.check_ids(counts)

    def learned_embedding(self, sizes: Sizes) -> dict[str, Tensor]:
        return _embedding_tensors(self.pattern, sizes)

    def embed(self, x: Tensor, ids: Tensor, learned: Named) -> Tensor:
        return _embed(self.pattern, x, ids, learned)

    def positions(self, length: int, device: Any = None) -> Tensor:
        return _only(self, "positions", self.pattern).positions(length, device=device)

    def draw_positions(self, rng, lengths, training):
        return _only(self, "draw_positions", self.pattern).draw_positions(rng, lengths, training)


ACTING = {*ORDERING, "slopes"}
"""The hooks by which an encoding acts on a model."""


def _embedding_tensors(encodings: list[PositionEncoding], sizes: Sizes) -> dict[str, Tensor]:
    """Return the tensors of all encodings' embeddings, equal encodings once."""
    return {
        f"group{i}_{name}": tensor
        for i, encoding in enumerate(encodings)
        if encoding not in encodings[:i]
        for name, tensor in encoding.learned_embedding(sizes).items()
    }


def _embed(encodings: list[PositionEncoding], x: Tensor, ids: Tensor, learned: Named) -> Tensor:
    for i, encoding in enumerate(encodings):
        if encoding not in encodings[:i]:
            x = encoding.embed(x, ids, own_of(f"group{i}_", learned))
    return x
