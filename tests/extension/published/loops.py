"""Loops that grow with the length (2409.15647)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.mixers import Loop


@dataclass
class PerTokens(Loop):
    """One loop for every `tokens` tokens, the last ones counted whole."""

    name: ClassVar[str] = "per_tokens"

    tokens: int = 8
    """Tokens that one loop is for."""

    def count(self, length):
        return -(-length // self.tokens)
