"""Parity of bits, asked for at every one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.tasks.base import Task


@dataclass
class Parity(Task):
    """The parity of the bits up to each one.

    >>> print(Parity().example(4, seed=0))
    inputs <bos> 1 1 1 0
    labels .     1 0 1 1
    """

    name: ClassVar[str] = "running_parity"
    kind: ClassVar[str] = "tagging"
    symbol_count = 2

    def sample(self, rng, lengths):
        bits = rng.integers(0, 2, (len(lengths), lengths.max()))
        return bits, bits.cumsum(axis=1) % 2
