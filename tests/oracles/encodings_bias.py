"""Biases by their formulas: one query, one key, one head at a time, in float64.

Written from the papers; nothing here imports lcg. A pair is that of tests/oracles/attention.py:
head, heads, i, j, q, k, and inputs [tokens width], those of the attention. A row holds all that
changes scores of one query: its head, z[head][key], the scores before any bias, and pairs[head].
"""

from __future__ import annotations

import math

import torch


def softplus(value):
    return (1 + value.exp()).log()


def sigmoid(value):
    return 1 / (1 + (-value).exp())


def t5_bucket(distance: int, buckets: int, farthest: int, one_sided: bool) -> int:
    """The bucket of i - j; two-sided: the second half of the buckets is for keys after the query,
    at distances below 0."""
    after = 0
    if one_sided:
        distance = max(distance, 0)
    else:
        buckets //= 2
        after, distance = (buckets if distance < 0 else 0), abs(distance)
    half = buckets // 2
    if distance < half:
        return after + distance
    share = math.log(distance / half) / math.log(farthest / half)
    return after + min(buckets - 1, half + math.floor(share * half + 1e-12))


def t5(pair, options, learned):
    one_sided = "after" not in learned
    bucket = t5_bucket(pair.i - pair.j, options["buckets"], options["farthest"], one_sided)
    sides = [learned["before"]] + ([] if one_sided else [learned["after"]])
    return torch.cat(sides, dim=1)[pair.head, bucket]


def kerple(pair, options, learned):
    a, raw_p = softplus(learned["raw_a"][pair.head]), learned["raw_p"][pair.head]
    distance = abs(pair.i - pair.j)
    if options["variant"] == "log":
        return -softplus(raw_p) * (1 + a * distance).log()
    return -a * distance ** (2 * sigmoid(raw_p)) if distance else 0 * a


def sandwich(pair, options, learned):
    width, base = options["width"], options["base"]
    waves = [math.cos((pair.i - pair.j) / base ** (2 * m / width)) for m in range(width // 2)]
    return learned["scale"][pair.head] * sum(waves)


def fire(pair, options, learned):
    c, multiple = (softplus(learned[name]) for name in ("raw_c", "raw_length"))
    length = options["train_length"] * multiple
    farthest = length if length > pair.i else pair.i
    ratio = (1 + c * abs(pair.i - pair.j)).log() / ((1 + c * farthest).log() + 1e-6)
    found = learned["outer_bias"][pair.head]
    for unit in range(options["hidden"]):
        inner = learned["inner"][unit, 0] * ratio + learned["inner_bias"][unit]
        if inner > 0:
            found = found + learned["outer"][pair.head, unit] * inner
    return found


def forgetting(sign: int):
    """FoX: the logarithm of σ(y) over the tokens after the key; CABLE: that of σ(-y)."""

    def bias(pair, options, learned):
        total = torch.zeros((), dtype=torch.float64)
        for u in range(pair.j + 1, pair.i + 1):
            gate = learned["b"][pair.head]
            if options["gates"] == "input":
                gate = gate + learned["w"][pair.head].dot(pair.inputs[u])
            total = total + sigmoid(sign * gate).log()
        return total

    return bias


def transformer_xl(pair, options, learned):
    u, v, w = (learned[name][pair.head] for name in ("u", "v", "w"))
    width, distance = w.shape[1], pair.i - pair.j
    angles = [distance / options["base"] ** (2 * m / width) for m in range((width + 1) // 2)]
    waves = [*map(math.sin, angles), *map(math.cos, angles)][:width]
    r = w @ torch.tensor(waves, dtype=torch.float64)
    return (u.dot(pair.k) + (pair.q * pair.factor + v).dot(r)) / math.sqrt(len(u))


def hard_alibi(head, heads, i, j, options):
    windowed = options["windowed"] or math.ceil(heads / 2)
    return head >= windowed or abs(i - j) <= head


def window(head, heads, i, j, options):
    return abs(i - j) < options["size"]


def scale_invariant(row, options, learned):
    found = []
    for pair, score in zip(row.pairs[row.head], row.z[row.head], strict=True):
        log = math.log(1 + abs(pair.i - pair.j) / options["tau"])
        found.append(math.sqrt(2 * log + 1) * score - 2 * log)
    return found


def cope(row, options, learned):
    scores, found = row.z[row.head], []
    for j, score in enumerate(scores):
        at = torch.stack([sigmoid(scores[u]) for u in range(j, len(scores))]).sum()
        if at > options["most"] - 1:
            at = torch.tensor(options["most"] - 1.0, dtype=torch.float64)
        low, high = math.floor(at.item()), math.ceil(at.item())
        pair = row.pairs[row.head][j]
        q = pair.q * pair.factor
        of_low, of_high = (q.dot(learned["e"][p]) for p in (low, high))
        found.append(score + of_low + (at - low) * (of_high - of_low))
    return found


def dape(inner, inner_options):
    """DAPE around a bias(pair, options, learned)."""

    def scores(row, options, learned):
        found = []
        for j in range(len(row.z[row.head])):
            biases = [inner(pairs[j], inner_options, learned) for pairs in row.pairs]
            both = torch.stack([z[j] for z in row.z] + [torch.as_tensor(b) for b in biases])
            total = row.z[row.head][j] + biases[row.head] + learned["dape_outer_bias"][row.head]
            for unit, weights in enumerate(learned["dape_inner"]):
                y = weights.dot(both) + learned["dape_inner_bias"][unit]
                total = total + learned["dape_outer"][row.head, unit] * (y if y > 0 else 0.01 * y)
            found.append(total)
        return found

    return scores
