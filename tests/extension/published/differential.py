"""Differential attention (2410.05258), with any normalizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.output_norms import OutputNorm
from lcg.positional.base import torch


@dataclass
class Differential(OutputNorm):
    """Heads 2p and 2p + 1 are a pair: (A_2p - λ·A_2p+1) times the values of both, then an RMSNorm.

    λ = exp(λq1·λk1) - exp(λq2·λk2) + λ_init, λ_init = 0.8 - 0.6·exp(-0.3·layer); the normed pairs
    are multiplied by 1 - λ_init.
    """

    name: ClassVar[str] = "differential"

    def check(self, sizes):
        if sizes.heads % 2 or sizes.kv_heads != sizes.heads:
            raise ValueError("differential: needs pairs of heads, each with keys of its own")

    def learned(self, sizes):
        tensors = {f"{k}{i}": 0.1 * torch.randn(sizes.head_dim) for k in "qk" for i in (1, 2)}
        init = torch.tensor(0.8 - 0.6 * math.exp(-0.3 * sizes.layer))
        tensors["init"] = torch.nn.Parameter(init, requires_grad=False)  # not learned
        return tensors | {"scale": torch.ones(2 * sizes.head_dim)}

    def values(self, v, learned):
        pairs = torch.cat([v[:, 0::2], v[:, 1::2]], dim=-1)
        return pairs.repeat_interleave(2, dim=1)

    def join(self, heads, x, learned):
        first, second = ((learned[f"q{i}"] * learned[f"k{i}"]).sum().exp() for i in (1, 2))
        init = learned["init"]
        pairs = (heads[:, 0::2] - (first - second + init) * heads[:, 1::2]).float()
        normed = pairs * torch.rsqrt(pairs.square().mean(-1, keepdim=True) + 1e-5)
        out = (1 - init) * learned["scale"] * normed
        return out.transpose(1, 2).flatten(2).to(heads.dtype)
