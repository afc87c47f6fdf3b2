"""Rotations by their formulas: one vector, or one query and one key, at a time, in float64.

Written from the papers; nothing here imports lcg. A row is that of tests/oracles/attention.py: its
head, and pairs[head] of (head, heads, i, j, q, k, factor) with q and k before any rotation.
"""

from __future__ import annotations

import math

import torch


def frequencies(r, options):
    """θ of each pair of r rotated dimensions, and the factor of the vector."""
    base, s, length = (options[name] for name in ("base", "scale", "train_length"))
    extension, found, factor = options["extension"], [], 1.0
    for m in range(r // 2):
        theta = base ** (-2 * m / r)
        own = theta
        if extension == "interpolation":
            own = theta / s
        if extension == "ntk" and r > 2:
            own = (base * s ** (r / (r - 2))) ** (-2 * m / r)
        if extension == "yarn":
            low, high = (
                r * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))
                for turns in (32, 1)
            )
            low, high = max(math.floor(low), 0), min(math.ceil(high), r - 1)
            ramp = (m - low) / (high - low) if high > low else float(m > low)
            ramp = min(max(ramp, 0), 1)
            own = theta * (1 - ramp) + ramp * theta / s
            factor = 0.1 * math.log(s) + 1
        if m >= round(options["keep"] * r / 2):
            own = 0.0
        if options["cutoff"] == "train_length" and theta < 2 * math.pi / length:
            own = 0.0
        found.append(own)
    return found, factor


def rope(vector, position, options):
    """Dimensions m and m + r/2 are a complex number, turned by position·θ_m."""
    if options["extension"] == "dynamic_ntk":
        return vector
    r = round(options["fraction"] * len(vector))
    return turned(vector, position, *frequencies(r, options))


def turned(vector, position, thetas, factor=1.0):
    found, half = vector.clone(), len(thetas)
    for m, theta in enumerate(thetas):
        turn = factor * complex(math.cos(position * theta), math.sin(position * theta))
        number = torch.complex(vector[m], vector[m + half]) * turn
        found[m], found[m + half] = number.real, number.imag
    return found


def dynamic_ntk(row, options, learned):
    if options["extension"] != "dynamic_ntk":
        return row.z[row.head]
    found = []
    for pair in row.pairs[row.head]:
        s = max(1.0, (pair.i + 1) / options["train_length"])
        r = round(options["fraction"] * len(pair.q))
        thetas, _ = frequencies(r, options | {"extension": "ntk", "scale": s})
        q, k = turned(pair.q, pair.i, thetas), turned(pair.k, pair.j, thetas)
        found.append(pair.factor * q.dot(k) / math.sqrt(len(q)))
    return found


def xpos(row, options, learned):
    found = []
    for pair in row.pairs[row.head]:
        d = len(pair.q)
        thetas = [options["base"] ** (-2 * m / d) for m in range(d // 2)]
        zetas = [(2 * m / d + 0.4) / 1.4 for m in range(d // 2)] * 2
        weights = [zeta ** ((pair.i - pair.j) / options["scale_base"]) for zeta in zetas]
        q, k = turned(pair.q, pair.i, thetas), turned(pair.k, pair.j, thetas)
        weighted = q * torch.tensor(weights, dtype=torch.float64)
        found.append(pair.factor * weighted.dot(k) / math.sqrt(d))
    return found


def pope(row, options, learned):
    found = []
    for pair in row.pairs[row.head]:
        d = len(pair.q)
        b = learned["b"][pair.head * len(learned["b"]) // pair.heads]
        angles = [(pair.i - pair.j) * options["base"] ** (-c / d) for c in range(d)]
        turns = torch.tensor(angles, dtype=torch.float64) - b.clamp(-2 * math.pi, 0)
        sizes = (1 + pair.q.exp()).log() * (1 + pair.k.exp()).log()
        found.append(pair.factor * sizes.dot(turns.cos()) / math.sqrt(d))
    return found


def waves(position, width, base):
    """sin and cos of the position at wavelengths 2π … 2π·base, in turn."""
    angles = [position / base ** (2 * (m // 2) / width) for m in range(width)]
    values = [math.cos(a) if m % 2 else math.sin(a) for m, a in enumerate(angles)]
    return torch.tensor(values, dtype=torch.float64)


def sinusoidal(x, position, options, learned):
    return x + options["scale"] * waves(position, len(x), options["base"])


def scaled_sinusoidal(x, position, options, learned):
    return x + learned["s"] * waves(position, len(x), options["base"])


def ape(x, position, options, learned):
    return x + learned["table0"][position]
