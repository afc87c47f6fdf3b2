"""Graphs that know places only: what is compared with, and what is joined to the predictors'.

Queries and keys are counted in order, from 0; in cross-attention query i and key i count as being
at the same place. Hidden keys are taken out later, so under a causal mask a window of w keys
keeps the ⌈w/2⌉ that come no later than the query.

Shapes: q some queries, m keys, h heads.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lcg.sparsefinder.predictors import Links, Method


def in_window(queries: Tensor, keys: Tensor, size: int) -> Tensor:
    """Bool [q m]: |i - j| ≤ (size - 1)/2."""
    return (queries[:, None] - keys).abs() <= (size - 1) // 2 if size else _nothing(queries, keys)


def with_globals(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """Bool [q m]: the first `count` tokens link to all and all link to them."""
    return (queries[:, None] < count) | (keys < count)


def _nothing(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.zeros(len(queries), len(keys), dtype=torch.bool, device=queries.device)


def hashed(queries: Tensor, keys: Tensor, heads: int, seed: int) -> Tensor:
    """Numbers in [0, 1) [h q m] that depend on head, places and seed, and on nothing else."""
    head = torch.arange(heads, device=queries.device)[:, None, None]
    mixed = (head * 0x9E3779B1 + queries[:, None] * 0x85EBCA77 + keys * 0xC2B2AE3D) + seed * 0x27D4
    for multiplier in (0x7FEB352D, 0x846CA68B):  # a 32-bit integer hash in 64-bit arithmetic
        mixed = (mixed ^ (mixed >> 16)) & 0xFFFFFFFF
        mixed = (mixed * multiplier) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFFFF).double() / 2**32


class Pattern(Method):
    """A graph that only places and the number of heads decide."""

    @abstractmethod
    def joined(self, queries: Tensor, keys: Tensor, heads: int) -> Tensor:
        """Return which are linked, Bool [q m] or [h q m]."""

    def links(self, heads, known) -> Links:
        keys = torch.arange(heads.k.shape[2], device=heads.k.device)
        return lambda queries: self.joined(queries, keys, heads.k.shape[1])[None]


@dataclass(frozen=True)
class Window(Pattern):
    """The keys nearby."""

    size: int
    family: ClassVar[str] = "window"
    setting = property(lambda self: f"of {self.size}")

    def joined(self, queries, keys, heads):
        return in_window(queries, keys, self.size)


@dataclass(frozen=True)
class Random(Pattern):
    """Each key with the same probability, drawn anew for every head and place."""

    share: float
    seed: int = 0
    family: ClassVar[str] = "random"
    setting = property(lambda self: f"{self.share:g} of keys")

    def joined(self, queries, keys, heads):
        return hashed(queries, keys, heads, self.seed) < self.share


@dataclass(frozen=True)
class Longformer(Pattern):
    """A window and global tokens, the first ones (2004.05150)."""

    globals: int
    window: int
    family: ClassVar[str] = "Longformer"
    setting = property(lambda self: f"{self.globals} globals, window {self.window}")

    def joined(self, queries, keys, heads):
        return in_window(queries, keys, self.window) | with_globals(queries, keys, self.globals)


@dataclass(frozen=True)
class BigBird(Pattern):
    """Blocks: the neighbouring ones, the first, and `blocks` random ones per head (2007.14062).

    A random block is one of the smallest hashes of its row of blocks; in expectation, as the
    number of key blocks is not the same for all queries of a causal model.
    """

    blocks: int
    size: int = 4
    seed: int = 0
    family: ClassVar[str] = "BigBird"
    setting = property(lambda self: f"{self.blocks} random blocks of {self.size}")

    def joined(self, queries, keys, heads):
        row, column = queries // self.size, keys // self.size
        near = (row[:, None] - column).abs() <= 1
        share = self.blocks / max(1, int(column[-1]) + 1)
        drawn = hashed(row, column, heads, self.seed) < share
        return drawn | near | with_globals(queries, keys, self.size)


@dataclass(frozen=True)
class Strided(Pattern):
    """The last `stride` keys, and every stride-th key (Sparse Transformer, 1904.10509)."""

    stride: int
    family: ClassVar[str] = "strided"
    setting = property(lambda self: f"stride {self.stride}")

    def joined(self, queries, keys, heads):
        near = (queries[:, None] - keys).abs() < self.stride
        return near | (keys % self.stride == self.stride - 1)
