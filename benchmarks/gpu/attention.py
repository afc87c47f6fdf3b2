"""Attention, forward and backward, of long and short rows, beside its peers."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.graphs import Call, Unready, recorded, sampled
from benchmarks.gpu.plan import TYPES, Plan
from benchmarks.gpu.results import Results, milliseconds
from benchmarks.report import median_ratio, time_in_turn
from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax
from lcg.positional.groups import NAPE

TOLERANCE = {"bf16": 2e-2, "fp32": 1e-4}
"""Tolerance of outputs and gradients of a type, as a share of the largest."""
SPREAD = 6**0.5
"""Standard deviation of queries, as in 2502.12082."""
OURS = {"triton": "", "triton with NAPE": ", NAPE"}
"""The comparison with each peer, and the field of a case that asks for it."""


class Case(NamedTuple):
    """One timed case: causal attention of sequences of one length."""

    length: int
    d: int
    type: str
    alpha: float = 1.5
    batch: int = 1

    @property
    def label(self) -> str:
        batch = f"batch {self.batch}, " if self.batch > 1 else ""
        return f"{batch}α={self.alpha} N={self.length} d={self.d} {self.type}"


def goal(case: Case, mine: str, peer: str) -> str:
    """Speed-up over a peer that a case is meant to reach, where one was set."""
    with_slopes = mine != "triton"
    if "adasplash" in peer:
        from_16k = "≥ 2" if with_slopes else "≥ 1.3"
        return from_16k if case.length >= 16384 else "" if with_slopes else "≥ 1"
    if case.batch > 1:
        return "" if with_slopes else "≥ 0.67"
    flash = "flash" in peer and case.alpha == 1.5
    return "≥ 1" if flash and with_slopes and case.length >= 32768 else ""


def attention(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """Long rows, by types, widths and lengths."""
    wrong = 0
    for name, d in itertools.product(plan.types, plan.widths):
        if not passed(plan, name, d, 1.5):
            wrong += 1
            continue
        for length in plan.lengths:
            functions = causal(plan, 1, length, d, name) | softmax(plan, 1, length, d, name)
            compare(plan, Case(length, d, name), functions, options.rounds, results)
    d, name = plan.widths[0], "fp32"
    if name in plan.types and passed(plan, name, d, plan.alpha):
        for length in plan.alpha_lengths:
            functions = causal(plan, 1, length, d, name, plan.alpha)
            functions |= softmax(plan, 1, length, d, name)
            case = Case(length, d, name, plan.alpha)
            compare(plan, case, functions, options.rounds, results)
    return int(wrong > 0)


def short(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """Rows that fit a tile, or nearly, of many sequences."""
    d, wrong = min(plan.widths), 0
    for name in plan.types:
        if not passed(plan, name, d, 1.5):
            wrong += 1
            continue
        for batch, length in plan.short:
            functions = causal(plan, batch, length, d, name) | softmax(plan, batch, length, d, name)
            case = Case(length, d, name, batch=batch)
            compare(plan, case, functions, options.rounds, results)
    return int(wrong > 0)


def adasplash(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """Lengths that are powers of two; it takes no others."""
    if importlib.util.find_spec("adasplash") is None:
        print("adasplash is not installed and is left out: pip install adasplash==0.2.2")
        return 0
    wrong = 0
    for alpha, name, d in itertools.product((1.5, plan.alpha), plan.types, plan.widths):
        if not passed(plan, name, d, alpha):
            wrong += 1
            continue
        for length in plan.lengths if alpha == 1.5 else plan.alpha_lengths:
            functions = causal(plan, 1, length, d, name, alpha)
            functions |= splashed(plan, length, d, name, alpha)
            case = Case(length, d, name, alpha)
            # Its first version asks the device how much there is to do: no graph can hold that.
            compare(plan, case, functions, options.rounds, results, capture=alpha == 1.5)
    return int(wrong > 0)


def problem(
    plan: Plan, batch: int, length: int, d: int, name: str
) -> tuple[list[Tensor], Bias, Bias]:
    """Queries, keys and values with gradients, and causal biases without and with slopes."""
    generator = torch.Generator(plan.device).manual_seed(0)
    shape = (batch, plan.heads, length, d)
    q, k, v = (torch.randn(shape, generator=generator, device=plan.device) for _ in range(3))
    leaves = [tensor.to(TYPES[name]).requires_grad_() for tensor in (q * SPREAD, k, v)]
    positions = torch.arange(length, device=plan.device)
    bias = Bias(positions, positions)
    return leaves, bias, bias._replace(slopes=NAPE().slopes(plan.heads).to(plan.device))


def passed(plan: Plan, name: str, d: int, alpha: float) -> bool:
    """Return True when outputs and gradients of the triton backend are right; print what is not."""
    wrong = []
    for batch, length in plan.checked:
        leaves, *biases = problem(plan, batch, length, d, name)
        exact = [leaf.detach().float().requires_grad_() for leaf in leaves]
        for kind, bias in zip(("without", "with"), biases, strict=True):
            found = differentiated(leaves, bias, alpha, "triton")
            wanted = differentiated(exact, bias, alpha, "reference")
            for part, got, want in zip(("out", "dq", "dk", "dv"), found, wanted, strict=True):
                off = float((got.float() - want).abs().max() / want.abs().max())
                if not off <= TOLERANCE[name]:
                    wrong.append(f"{part} at N={length} {kind} slopes is off by {off:.1e}")
    for line in wrong:
        print(f"not timed, α={alpha} d={d} {name}: {line}", file=sys.stderr, flush=True)
    return not wrong


def differentiated(leaves: list[Tensor], bias: Bias, alpha: float, backend: str) -> list[Tensor]:
    """The output and the gradients."""
    out = attend(*leaves, Entmax(alpha), bias, None, backend)
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), leaves)]


def timed(leaves: list[Tensor], function: Callable[..., Tensor]) -> Call:
    """Forward and backward."""
    cotangent = torch.ones_like(leaves[0])
    return lambda: torch.autograd.grad(function(*leaves), leaves, cotangent)


def causal(
    plan: Plan, batch: int, length: int, d: int, name: str, alpha: float = 1.5
) -> dict[str, Call]:
    """By triton, without and with NAPE slopes."""
    leaves, bias, sloped = problem(plan, batch, length, d, name)

    def ours(bias: Bias) -> Call:
        return timed(leaves, lambda q, k, v: attend(q, k, v, Entmax(alpha), bias, None, "triton"))

    return {"triton": ours(bias), "triton with NAPE": ours(sloped)}


def softmax(plan: Plan, batch: int, length: int, d: int, name: str) -> dict[str, Call]:
    """By torch's fused kernels, each by its name."""
    leaves, *_ = problem(plan, batch, length, d, name)

    def by(backend: SDPBackend) -> Call:
        def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return timed(leaves, attended)

    return {peer: by(backend) for peer, backend in plan.peers[name].items()}


def splashed(plan: Plan, length: int, d: int, name: str, alpha: float) -> dict[str, Call]:
    """By adasplash, without a bias: it takes none."""
    from adasplash import adasplash as peer

    leaves, *_ = problem(plan, 1, length, d, name)
    version = "v2" if alpha == 1.5 else "v1"
    function = timed(leaves, lambda q, k, v: peer(q, k, v, alpha=alpha, is_causal=True))
    return {f"adasplash {version}": function}


def compare(
    plan: Plan,
    case: Case,
    functions: dict[str, Call],
    rounds: int,
    results: Results,
    capture: bool = True,
) -> None:
    """Time the functions in turn; a row for each of ours beside each of the others."""
    ready: dict[str, tuple[Call, int]] = {}
    missing: dict[str, str] = {}
    longest = 0.0
    for key, call in functions.items():
        try:
            if plan.device == "cuda":
                own = capture or key.startswith("triton")
                call = recorded(f"{case.label}, {key}", call, own)
            sample, times, once = sampled(call, plan.synchronize)
            ready[key], longest = (sample, times), max(longest, once)
        except Unready as reason:
            missing[key] = str(reason)
    fewer = max(3, min(rounds, int(2 / longest))) if longest else rounds
    samples = {key: sample for key, (sample, _) in ready.items()}
    seconds = {
        key: [one / ready[key][1] for one in found]
        for key, found in time_in_turn(samples, min(rounds, fewer)).items()
    }
    time = {key: milliseconds(found) for key, found in seconds.items()} | missing
    for mine, peer in itertools.product(OURS, [key for key in functions if key not in OURS]):
        data: dict[str, Any] = {key: seconds.get(key, time[key]) for key in (mine, peer)}
        ratio = ""
        if not {mine, peer} & missing.keys():
            data[f"{peer} / {mine}"] = median_ratio(seconds[peer], seconds[mine])
            ratio = f"{data[f'{peer} / {mine}']:.2f}"
        row = [time[mine], peer, time[peer], ratio, goal(case, mine, peer)]
        results.add(f"{case.label}{OURS[mine]}", row, data)
