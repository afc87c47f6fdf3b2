"""Attention by its formulas: one query, one key, one head at a time, in float64.

Written from the papers. Nothing here imports lcg or positional: a choice is known by its name, its
options and its learned tensors, so that no mistake is made twice. Every registered choice needs an
entry in one of the four tables: NORMALIZERS, SCALINGS, POSITIONS, OUTPUT_NORMS.

Scores z hold the keys that a query sees, oldest first. `learned` maps names to tensors whose first
dimension is the head, unless the formula says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from oracles import encodings_bias as biases
from oracles import encodings_rotary as rotary
from oracles import normalizers
from oracles.outputs import OUTPUT_NORMS as FURTHER_OUTPUT_NORMS
from oracles.outputs import Heads
from torch import Tensor

Options = dict[str, Any]
State = dict[str, Tensor]


class Chosen(NamedTuple):
    """A choice by its name and options."""

    name: str
    options: Options = {}


class Choices(NamedTuple):
    """Parts and sizes of one attention layer."""

    normalizer: Chosen
    scaling: Chosen
    position: Chosen
    output_norm: Chosen
    heads: int
    kv_heads: int


def formula(table: dict[str, Any], kind: str, name: str) -> Any:
    """The entry of a table, or an error that says what to do."""
    if name not in table:
        raise LookupError(
            f"{kind} {name!r} has no oracle: write its formula in tests/oracles/attention.py"
        )
    return table[name]


# ---- normalizers: z [keys] -> weights [keys]


def softmax(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    e = (z - z.max().item()).exp()
    return e / e.sum()


def entmax(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    return _entmax(z, torch.tensor(options["alpha"] - 1.0, dtype=torch.float64))


def entmax_learned(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    a = learned["a"][head]
    return _entmax(z, torch.clamp(1 / (1 + (-a).exp()), min=options["floor"]))


def _entmax(z: Tensor, a: Tensor) -> Tensor:
    """[a·z - τ]₊^(1/a) for a = α - 1, τ by bisection; its derivative follows from Σ p = 1."""
    if a == 0:
        return softmax(z, {}, {}, 0)
    scaled, power = [a.item() * value for value in z.tolist()], 1 / a.item()
    low, high = max(scaled) - 1, max(scaled)
    for _ in range(100):
        tau = (low + high) / 2
        if sum((s - tau) ** power for s in scaled if s > tau) > 1:
            low = tau
        else:
            high = tau
    support = a * z > tau
    kept = a * z[support]
    mass = ((kept - tau) ** (1 / a)).sum()
    slope = ((kept - tau) ** (1 / a - 1) / a).sum().item()
    moved = tau + (mass - 1) / slope  # a Newton step of length 0: only its derivative counts
    weights = torch.zeros_like(z)
    weights[support] = (kept - moved) ** (1 / a)
    return weights


def relu(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    return torch.stack([value if value > 0 else 0 * value for value in z])


def topk(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    values, k = z.tolist(), min(options["k"], len(z))
    last = sorted(values)[-k]
    above = [j for j, value in enumerate(values) if value - last > 1e-5 * max(1, abs(last))]
    tied = [j for j, value in enumerate(values) if abs(value - last) <= 1e-5 * max(1, abs(last))]
    kept = sorted(above + tied[len(tied) - (k - len(above)) :])  # the most recent win a tie
    weights = torch.zeros_like(z)
    weights[kept] = softmax(z[kept], {}, {}, 0)
    return weights


def adaptive_temperature(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    p = softmax(z, {}, {}, 0)
    H = sum(-value * value.log() for value in p)
    beta = 1.0
    if H > 0.5:
        beta = -0.037 * H**4 + 0.481 * H**3 - 2.3 * H**2 + 4.917 * H - 1.791
    return softmax(z * (beta if beta > 1 else 1.0), {}, {}, 0)


def stick_breaking(z: Tensor, options: Options, learned: State, head: int) -> Tensor:
    left, taken = torch.ones((), dtype=torch.float64), []
    for value in reversed(list(z)):
        share = 1 / (1 + (-value).exp())
        taken.append(share * left)
        left = left * (1 - share)
    return torch.stack(taken[::-1])


NORMALIZERS: dict[str, Callable[[Tensor, Options, State, int], Tensor]] = {
    "softmax": softmax,
    "entmax": entmax,
    "entmax_learned": entmax_learned,
    "relu": relu,
    "topk": topk,
    "adaptive_temperature": adaptive_temperature,
    "stick_breaking": stick_breaking,
    **normalizers.NORMALIZERS,
}
STRICTLY_PAST = {"stick_breaking"}  # a query does not see its own key


# ---- query scalings: one query's input x [width] and its count n of keys -> a number


def no_scaling(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    return torch.ones((), dtype=torch.float64)


def log_scaling(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    scaler = learned["s"][head] * math.log(n + options["offset"])
    return scaler + learned["b"][head] if options["bias"] else scaler


def adaptive_scaling(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    b = learned["beta_weight"][head].dot(x)
    g = learned["gamma_weight"][head].dot(x)
    if options["bias"]:
        b = b + learned["beta_bias"][head]
        g = g + learned["gamma_bias"][head]
    beta, gamma = (1 + b.exp()).log(), options["gamma_range"] * g.tanh()
    return options["delta"] + beta * math.log(n + options["offset"]) ** gamma


def head_scaling(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    power = math.log(n + options["offset"]) ** learned["gamma"][head]
    return options["delta"] + learned["beta"][head] * power


def log_ratio(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    return torch.tensor(math.log(n, options["train_length"]), dtype=torch.float64)


def qwen_log(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    one = torch.ones((), dtype=torch.float64)
    return log_ratio(x, n, options, learned, head) if n > options["train_length"] else one


def llama4(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    steps = n // options["floor"]
    return torch.tensor(1 + options["factor"] * math.log(1 + steps), dtype=torch.float64)


def info(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    length, d = options["train_length"], options["head_dim"]
    ratio = (1 - n ** (-2 / d)) / (1 - length ** (-2 / d))
    return torch.tensor(math.sqrt(ratio), dtype=torch.float64)


def yarn_temperature(x: Tensor, n: int, options: Options, learned: State, head: int) -> Tensor:
    return torch.tensor((0.1 * math.log(options["scale"]) + 1) ** 2, dtype=torch.float64)


SCALINGS: dict[str, Callable[[Tensor, int, Options, State, int], Tensor]] = {
    "none": no_scaling,
    "log": log_scaling,
    "adaptive": adaptive_scaling,
    "head": head_scaling,
    "log_ratio": log_ratio,
    "qwen_log": qwen_log,
    "llama4": llama4,
    "info": info,
    "yarn_temperature": yarn_temperature,
}


# ---- position encodings


class Pair(NamedTuple):
    """A query at position i and a key at position j, for one of `heads` heads.

    factor: of a length scaling; inputs [tokens width]: what keys are made of.
    """

    head: int
    heads: int
    i: int
    j: int
    q: Tensor
    k: Tensor
    factor: Any
    inputs: Tensor


class Row(NamedTuple):
    """The scores z[head][key] of one query before any bias, and its pairs[head][key]."""

    head: int
    z: list[list[Tensor]]
    pairs: list[list[Pair]]


class Encoding(NamedTuple):
    """Each part of an encoding, with what it is for an encoding without it."""

    rotate: Callable[[Tensor, int, Options], Tensor] = lambda vector, position, options: vector
    bias: Callable[[Pair, Options, State], Any] = lambda pair, options, learned: 0.0
    scaled: Callable[[int, int], bool] = lambda head, heads: True
    embed: Callable[[Tensor, int, Options, State], Tensor] = lambda x, position, options, learned: x
    scores: Callable[[Row, Options, State], list[Tensor]] = lambda row, options, learned: row.z[
        row.head
    ]
    sees: Callable[[int, int, int, int, Options], bool] = lambda head, heads, i, j, options: True


def alibi_slope(head: int, heads: int, options: Options) -> float:
    """m of head 0, 1, …; interleaved: a geometric sequence of a power of two, then the odd members
    (first, third, …) of the sequence of twice that power."""
    if options["variant"] in ("linear", "exponential"):
        return 1 / (head + 1) if options["variant"] == "linear" else 0.5**head
    if options["variant"] == "geometric" or heads & (heads - 1) == 0:
        return 2 ** (-8 * (head + 1) / heads)
    power = 1
    while 2 * power < heads:
        power *= 2
    if head < power:
        return 2 ** (-8 * (head + 1) / power)
    return 2 ** (-8 * (2 * (head - power) + 1) / (2 * power))


def nape_slope(head: int, heads: int, options: Options) -> float:
    if head >= math.ceil(heads / 2):
        return 0.0
    return 1 / (head + 1) if options["variant"] == "linear" else 0.5**head


POSITIONS: dict[str, Encoding] = {
    "nope": Encoding(),
    "alibi": Encoding(bias=lambda p, o, _: -alibi_slope(p.head, p.heads, o) * abs(p.i - p.j)),
    "nape": Encoding(
        bias=lambda p, o, _: -nape_slope(p.head, p.heads, o) * abs(p.i - p.j),
        scaled=lambda head, heads: head >= math.ceil(heads / 2),
    ),
    "rope": Encoding(rotate=rotary.rope, scores=rotary.dynamic_ntk),
    "xpos": Encoding(scores=rotary.xpos),
    "pope": Encoding(scores=rotary.pope),
    "sinusoidal": Encoding(embed=rotary.sinusoidal),
    "scaled_sinusoidal": Encoding(embed=rotary.scaled_sinusoidal),
    "ape": Encoding(embed=rotary.ape),
    "t5": Encoding(bias=biases.t5),
    "kerple": Encoding(bias=biases.kerple),
    "sandwich": Encoding(bias=biases.sandwich),
    "scale_invariant": Encoding(scores=biases.scale_invariant),
    "fire": Encoding(bias=biases.fire),
    "fox": Encoding(bias=biases.forgetting(1)),
    "cable": Encoding(bias=biases.forgetting(-1)),
    "transformer_xl": Encoding(bias=biases.transformer_xl),
    "cope": Encoding(scores=biases.cope),
    "window": Encoding(sees=biases.window),
    "hard_alibi": Encoding(
        sees=biases.hard_alibi, scaled=lambda head, heads: head >= math.ceil(heads / 2)
    ),
}


# ---- output norms: the heads of one query -> [width]


def rms(heads: Heads, options: Options, learned: State) -> Tensor:
    o = heads.joined
    normed = learned["scale"] * o / (sum(value**2 for value in o) / len(o) + options["eps"]).sqrt()
    return normed / (1 + (-learned["gate"] * o).exp()) if options["gated"] else normed


OUTPUT_NORMS: dict[str, Callable[[Heads, Options, State], Tensor]] = {
    "none": lambda heads, options, learned: heads.joined,
    "rms": rms,
    **FURTHER_OUTPUT_NORMS,
}


# ---- all of it


def attention(
    x: Tensor,
    state: State,
    choices: Choices,
    kind: str = "causal",
    memory: Tensor | None = None,
) -> tuple[Tensor, list[list[Tensor]]]:
    """Attention of one sequence x [tokens width], float64: to itself up to the query (causal), to
    all of itself (full), or to all of a memory [others width] (cross).

    state: the layer's tensors by their names in its state dict. Returns the outputs
    [tokens width], and for each head and query the weights of the keys that it sees.
    """
    heads, kv_heads = choices.heads, choices.kv_heads
    normalize = formula(NORMALIZERS, "normalizer", choices.normalizer.name)
    multiplier = formula(SCALINGS, "scaling", choices.scaling.name)
    encoding = formula(POSITIONS, "position", choices.position.name)
    output_norm = formula(OUTPUT_NORMS, "output_norm", choices.output_norm.name)
    options = choices.position.options
    source = x if memory is None else memory
    first_scaled = next((h for h in range(heads) if encoding.scaled(h, heads)), heads)

    def project(name: str, group: int, groups: int, row: Tensor) -> Tensor:
        bias = state.get(f"{name}.bias", torch.zeros(len(state[f"{name}.weight"])))
        return state[f"{name}.weight"].chunk(groups)[group] @ row + bias.chunk(groups)[group]

    def part(name: str) -> State:
        return {k.split(".")[1]: v for k, v in state.items() if k.startswith(f"{name}_state.")}

    keys = [
        [encoding.rotate(project("key", g, kv_heads, y), j, options) for j, y in enumerate(source)]
        for g in range(kv_heads)
    ]
    values = [[project("value", g, kv_heads, y) for y in source] for g in range(kv_heads)]
    outputs, weights = [], [[] for _ in range(heads)]
    for i in range(len(x)):
        seen = len(source)
        if kind == "causal":
            seen = i if choices.normalizer.name in STRICTLY_PAST else i + 1
        pairs = []
        for h in range(heads):
            q = encoding.rotate(project("query", h, heads, x[i]), i, options)
            factor = 1.0
            if encoding.scaled(h, heads):
                factor = multiplier(
                    x[i], max(seen, 1), choices.scaling.options, part("scaling"), h - first_scaled
                )
            own_keys = keys[h // (heads // kv_heads)]
            pairs.append(
                [Pair(h, heads, i, j, q, own_keys[j], factor, source) for j in range(seen)]
            )
        z = [[p.factor * p.q.dot(p.k) / math.sqrt(len(p.q)) for p in row] for row in pairs]
        joined = []
        for h in range(heads):
            g = h // (heads // kv_heads)
            scores = encoding.scores(Row(h, z, pairs), options, part("position"))
            scores = [
                score + encoding.bias(pair, options, part("position"))
                for score, pair in zip(scores, pairs[h], strict=True)
            ]
            total = torch.zeros_like(values[g][0])
            p = torch.zeros(seen, dtype=torch.float64)
            seen_keys = [j for j in range(seen) if encoding.sees(h, heads, i, j, options)]
            if seen_keys:
                some = torch.stack([scores[j] for j in seen_keys])
                some = normalize(some, choices.normalizer.options, part("normalizer"), h)
                p = p.index_add(0, torch.tensor(seen_keys), some)
            for j in range(seen):
                total = total + p[j] * values[g][j]
            weights[h].append(p)
            joined.append(total)
        own = Heads(
            torch.cat(joined),
            [weights[h][i] for h in range(heads)],
            [values[h // (heads // kv_heads)][:seen] for h in range(heads)],
            x[i],
        )
        normed = output_norm(own, choices.output_norm.options, part("output_norm"))
        outputs.append(state["output.weight"] @ normed + state.get("output.bias", 0.0))
    return torch.stack(outputs), weights
