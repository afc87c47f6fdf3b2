"""Formulas of what becomes of the heads of one query, float64: gates, pairs of heads, LASER.

Written from the papers; `oracles.attention` has them in its table.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Heads(NamedTuple):
    """A query's heads: Σ p v of all of them [width], the weights p [keys] and the values v [d] of
    the keys of each, and the attention's input x at the query.
    """

    joined: Tensor
    weights: list[Tensor]
    values: list[list[Tensor]]
    x: Tensor


def gated(heads, options, learned):
    logits = [row.dot(heads.x) for row in learned["gate"]]
    width = len(heads.joined) // len(logits)  # of what a gate is for
    gates = [1 / (1 + (-logits[c // width]).exp()) for c in range(len(heads.joined))]
    return heads.joined * torch.stack(gates)


def differential(heads, options, learned):
    first, second = (math.e ** learned[f"q{n}"].dot(learned[f"k{n}"]) for n in (1, 2))
    lam, out = first - second + learned["init"], []
    for p in range(0, len(heads.weights), 2):
        pair = torch.zeros(2 * len(learned["q1"]), dtype=torch.float64)
        for j in range(len(heads.weights[p])):
            value = torch.cat([heads.values[p][j], heads.values[p + 1][j]])
            pair = pair + (heads.weights[p][j] - lam * heads.weights[p + 1][j]) * value
        rms = (pair.dot(pair) / len(pair) + options["eps"]).sqrt()
        out.append((1 - learned["init"]) * learned["scale"] * pair / rms)
    return torch.cat(out)


def laser(heads, options, learned):
    out = []
    for p, values in zip(heads.weights, heads.values, strict=True):
        for c in range(len(heads.joined) // len(heads.weights)):
            total = torch.zeros((), dtype=torch.float64)
            for weight, value in zip(p, values, strict=True):
                bounded = options["bound"] * torch.tanh(value[c] / options["bound"])
                total = total + weight * bounded.exp()
            out.append(total.log() if total > 0 else torch.zeros_like(total))
    return torch.stack(out)


OUTPUT_NORMS = {"gated": gated, "differential": differential, "laser": laser}
