"""Published encodings by their formulas, one pair of tokens at a time, in float64.

Written from the papers; nothing here imports lcg. q and k are [heads tokens d] before any rotation,
x [tokens width] is the attention's input, ids the position ids, `learned` the tensors by name. A
formula gives the score of head h, query i and key j <= i, the 1/√d included.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Given(NamedTuple):
    q: Tensor
    k: Tensor
    x: Tensor
    ids: list[int]
    learned: dict[str, Tensor]
    options: dict[str, Any]

    def product(self, h: int, i: int, j: int) -> float:
        return float(self.q[h, i] @ self.k[h, j]) / math.sqrt(self.q.shape[-1])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


def fox(g: Given, h: int, i: int, j: int) -> float:
    kept = 1.0
    for u in range(j + 1, i + 1):
        gate = float(g.learned["b"][h])
        if g.options["gates"] == "data":
            gate += float(g.learned["w"][h] @ g.x[u])
        kept *= sigmoid(gate)
    return g.product(h, i, j) + math.log(kept)


def t5(g: Given, h: int, i: int, j: int) -> float:
    distance, half, last = i - j, g.options["buckets"] // 2, g.options["buckets"] - 1
    bucket = distance
    if distance >= half:
        share = math.log(distance / half) / math.log(g.options["farthest"] / half)
        bucket = min(last, half + math.floor(share * half))
    return g.product(h, i, j) + float(g.learned["before"][h, bucket])


def fire(g: Given, h: int, i: int, j: int) -> float:
    c, least = (softplus(float(raw)) for raw in g.learned["raw"])
    ratio = math.log(1 + c * (i - j)) / math.log(1 + c * max(least, i))
    found = float(g.learned["outer_bias"][h])
    for unit in range(g.options["hidden"]):
        inner = float(g.learned["inner"][unit, 0]) * ratio + float(g.learned["inner_bias"][unit])
        found += float(g.learned["outer"][h, unit]) * max(inner, 0.0)
    return g.product(h, i, j) + found


def pope(g: Given, h: int, i: int, j: int) -> float:
    d = g.q.shape[-1]
    total = 0.0
    for c in range(d):
        theta = g.options["base"] ** (-c / d)
        turn = min(0.0, max(-2 * math.pi, float(g.learned["b"][h, c])))
        sizes = softplus(float(g.q[h, i, c])) * softplus(float(g.k[h, j, c]))
        total += sizes * math.cos((g.ids[i] - g.ids[j]) * theta - turn)
    return total / math.sqrt(d)


def scale_invariant(g: Given, h: int, i: int, j: int) -> float:
    log = math.log(1 + (i - j) / g.options["tau"])
    a = math.sqrt(2 * log + 1) if g.options["multiply"] else 1.0
    return a * g.product(h, i, j) - 2 * log


def dape(g: Given, h: int, i: int, j: int) -> float:
    heads = len(g.q)
    bias = -math.log(1 + i - j)
    both = [g.product(other, i, j) for other in range(heads)] + [bias] * heads
    found = g.product(h, i, j) + bias
    for unit in range(g.options["hidden"]):
        inner = sum(float(g.learned["inner"][unit, n]) * value for n, value in enumerate(both))
        found += float(g.learned["outer"][h, unit]) * (inner if inner > 0 else 0.01 * inner)
    return found


def cope(g: Given, h: int, i: int, j: int) -> float:
    at = sum(sigmoid(g.product(h, i, u)) for u in range(j, i + 1))
    at = min(at, g.options["most"] - 1)
    low, high = math.floor(at), math.ceil(at)
    of_low, of_high = (float(g.q[h, i] @ g.learned["e"][p]) for p in (low, high))
    return g.product(h, i, j) + of_low + (at - low) * (of_high - of_low)


def turned(vector: Tensor, angles: list[float], factor: float = 1.0) -> Tensor:
    """Dimensions m and m + d/2 as a complex number, turned and stretched."""
    half = len(vector) // 2
    found = vector.clone()
    for m, angle in enumerate(angles):
        a, b = float(vector[m]), float(vector[m + half])
        found[m] = factor * (a * math.cos(angle) - b * math.sin(angle))
        found[m + half] = factor * (b * math.cos(angle) + a * math.sin(angle))
    return found


def rope(g: Given, h: int, i: int, j: int) -> float:
    d = g.q.shape[-1]
    thetas = [10000 ** (-2 * m / d) for m in range(d // 2)]
    q, k = (turned(v, [g.ids[n] * t for t in thetas]) for v, n in ((g.q[h, i], i), (g.k[h, j], j)))
    return float(q @ k) / math.sqrt(d)


def alibi(g: Given, h: int, i: int, j: int) -> float:
    return g.product(h, i, j) - 2 ** (-8 * (h + 1) / len(g.q)) * abs(g.ids[i] - g.ids[j])


def yarn(g: Given, h: int, i: int, j: int) -> float:
    d, s, base, length = g.q.shape[-1], *(g.options[k] for k in ("scale", "base", "train_length"))
    thetas = yarn_frequencies(d, s, base, length)
    factor = 0.1 * math.log(s) + 1
    q = turned(g.q[h, i], [i * theta for theta in thetas], factor)
    k = turned(g.k[h, j], [j * theta for theta in thetas], factor)
    return float(q @ k) / math.sqrt(d)


def yarn_frequencies(d: int, s: float, base: float, length: int) -> list[float]:
    """θ' of each pair of dimensions: slow ones divided by s, fast ones as they are."""

    def dimension(turns: float) -> float:
        return d * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), d - 1)
    found = []
    for m in range(d // 2):
        theta = base ** (-2 * m / d)
        rho = min(1.0, max(0.0, (m - low) / max(high - low, 1e-3)))
        found.append(theta * (1 - rho) + rho * theta / s)
    return found


SCORES = {
    "fox": fox,
    "t5": t5,
    "fire": fire,
    "pope": pope,
    "scale_invariant": scale_invariant,
    "dape": dape,
    "cope": cope,
    "yarn": yarn,
    "random_rope": rope,
    "random_alibi": alibi,
}
"""The score of each encoding by its name."""


def differential(
    weights: Tensor, values: Tensor, learned: dict[str, Tensor], layer: int
) -> list[list[float]]:
    """The joined pairs of heads of each query, from weights [h n n] and values [h n d]."""
    init = 0.8 - 0.6 * math.exp(-0.3 * layer)
    dots = [
        sum(float(a * b) for a, b in zip(learned[f"q{n}"], learned[f"k{n}"], strict=True))
        for n in (1, 2)
    ]
    lam = math.exp(dots[0]) - math.exp(dots[1]) + init
    rows = []
    for i in range(weights.shape[1]):
        joined = []
        for p in range(len(weights) // 2):
            pair = torch.cat([values[2 * p], values[2 * p + 1]], dim=-1)
            both = [
                float(
                    sum(
                        (weights[2 * p, i, j] - lam * weights[2 * p + 1, i, j]) * pair[j, e]
                        for j in range(i + 1)
                    )
                )
                for e in range(pair.shape[-1])
            ]
            rms = math.sqrt(sum(value**2 for value in both) / len(both) + 1e-5)
            scale = learned["scale"]
            joined += [(1 - init) * float(scale[e]) * value / rms for e, value in enumerate(both)]
        rows.append(joined)
    return rows
