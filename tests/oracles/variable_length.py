"""Tasks whose rows of one nominal length differ in their own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import IGNORE, Task


@dataclass
class Ragged(Task):
    """Sources of up to the nominal length, and twice their first half as the target."""

    name: ClassVar[str] = "ragged"
    variable_length: ClassVar[bool] = True

    symbols: int = 9

    def sample(self, rng, lengths):
        source = rng.integers(0, self.symbols, (len(lengths), lengths.max() + 2))
        target = source.copy()
        for row, length in enumerate(lengths):
            own = rng.integers(1, length + 1)
            source[row, own:], target[row, (own + 1) // 2 :] = -1, -1
        width = (source >= 0).sum(axis=1).max()  # as wide as this block's longest row
        return source[:, :width], target[:, :width]


@dataclass
class RaggedMasked(Ragged):
    """Every third symbol is masked and asked for."""

    name: ClassVar[str] = "ragged_masked"
    kind: ClassVar[str] = "masked"

    def sample(self, rng, lengths):
        source, _ = super().sample(rng, lengths)
        target = np.full_like(source, IGNORE)
        target[:, ::3], source[:, ::3] = (
            np.where(source >= 0, source, IGNORE)[:, ::3],
            np.where(source >= 0, self.mask, -1)[:, ::3],
        )
        return source, target
