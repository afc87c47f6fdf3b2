"""Caches of keys and values, so that decoding reads each token once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

Kept = dict[str, Tensor]
"""Tensors of each token, by name, the tokens along the third dimension."""


class NoCache:
    """The cache of a single pass: it stores nothing."""

    length = 0
    state: Any = None
    """State from which a mixer without attention continues."""

    def proceed(self, state: Any, count: int) -> None:
        """Store the state of a mixer after `count` more tokens."""

    def append(self, new: Kept, sums: Collection[str] = ()) -> Kept:
        """Return the tensors as they are, those in `sums` as running sums in float64."""
        return {name: t.double().cumsum(2) if name in sums else t for name, t in new.items()}

    def once(self, make: Callable[[], Kept]) -> Kept:
        """Return the result of a call."""
        return make()


NO_CACHE = NoCache()


class LayerCache(NoCache):
    """The cached tensors of one layer.

    They are keys (rotated) and values [b g k d], and the states of an encoding [b h k], in buffers
    that double when full; and the keys and values that cross-attention computes once from an
    encoder's output.
    """

    def __init__(self) -> None:
        self.length = 0
        self._room: Kept = {}
        self._of_memory: Kept | None = None

    def append(self, new: Kept, sums: Collection[str] = ()) -> Kept:
        """Add the tensors of more tokens; return those of all tokens so far."""
        new = super().append(new, sums)
        start = self.length
        self.length += next(iter(new.values())).shape[2]
        for name, tensor in new.items():
            self._room[name] = self._fit(self._room.get(name), tensor, start)
            if name in sums and start:
                tensor = tensor + self._room[name][:, :, start - 1, None]
            self._room[name][:, :, start : self.length] = tensor
        return {name: room[:, :, : self.length] for name, room in self._room.items()}

    def proceed(self, state: Any, count: int) -> None:
        self.state, self.length = state, self.length + count

    def once(self, make: Callable[[], Kept]) -> Kept:
        """Return the result of the first call."""
        if self._of_memory is None:
            self._of_memory = make()
        return self._of_memory

    def _fit(self, held: Tensor | None, new: Tensor, start: int) -> Tensor:
        if held is not None and held.shape[2] >= self.length:
            return held
        count = self.length if held is None else max(self.length, 2 * held.shape[2])
        room = new.new_empty(*new.shape[:2], count, *new.shape[3:])
        if held is not None:
            room[:, :, :start] = held[:, :, :start]
        return room


class KVCache:
    """One LayerCache per layer (and loop), for sequences of up to `capacity` tokens.

    It also stores the position ids, [t] or [b t], if these differ from the order of tokens.
    """

    def __init__(self, layers: int, capacity: int, ids: Tensor | None = None) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.capacity, self.ids = capacity, ids

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self.layers[0].length

    def next_ids(self, count: int) -> Tensor | None:
        """Return the position ids of all tokens including the next `count`.

        Raises ValueError beyond the capacity of the cache.
        """
        end = self.length + count
        if end > self.capacity:
            raise ValueError(
                f"the cache was made for {self.capacity} tokens and is asked for {end}"
            )
        return None if self.ids is None else self.ids[..., :end]
