"""Keys and values of what a model has read, so that decoding reads each token once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class NoCache:
    """Stands where nothing is kept: what is given is all there is."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as they are."""
        return keys, values

    def once(self, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return what is made now."""
        return make()


NO_CACHE = NoCache()


class LayerCache:
    """Keys (rotated) and values [b g k d] of one block: of the tokens it has read, in room that
    doubles when it is full, and those that cross-attention makes of an encoder's output, once.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._of_memory: tuple[Tensor, Tensor] | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values; returns all of them so far."""
        end = self.length + keys.shape[-2]
        self._keys = self._fit(self._keys, keys, end)
        self._values = self._fit(self._values, values, end)
        self._keys[..., self.length : end, :] = keys
        self._values[..., self.length : end, :] = values
        self.length = end
        return self._keys[..., :end, :], self._values[..., :end, :]

    def once(self, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return what was made when this was first called."""
        if self._of_memory is None:
            self._of_memory = make()
        return self._of_memory

    def _fit(self, held: Tensor | None, new: Tensor, end: int) -> Tensor:
        if held is not None and held.shape[-2] >= end:
            return held
        *outer, _, width = new.shape
        room = new.new_empty(*outer, end if held is None else max(end, 2 * held.shape[-2]), width)
        if held is not None:
            room[..., : self.length, :] = held[..., : self.length, :]
        return room


class KVCache:
    """One LayerCache per layer, and the position ids of the longest sequence to come.

    The ids are drawn once and stay, so that an encoding with random positions is consistent
    between what was read and what is decoded.
    """

    def __init__(self, layers: int, positions: Tensor) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.positions = positions

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self.layers[0].length

    def next_positions(self, count: int) -> Tensor:
        """Position ids of all tokens up to the next `count`.

        Raises ValueError beyond the capacity the cache was made for.
        """
        end = self.length + count
        if end > len(self.positions):
            raise ValueError(
                f"the cache was made for {len(self.positions)} tokens and is asked for {end}"
            )
        return self.positions[:end]
