"""Forward + backward time of lcg.entmax beside the PyPI package entmax, in one process.

    python -m benchmarks.entmax [--threads 2]

Refuses to time anything unless weights and gradients agree with the peers and the rows sum to 1.
The three functions are timed in turn, round after round, and compared by the median round. Ours is
many short operations, so it suffers most from whatever else runs: the load stands in the result.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.entmax import entmax

SHAPES = ((32768, 64), (512, 4096), (64, 65536))
TARGETS = {"entmax15": 4.0, "entmax_bisect": 10.0}
# entmax_bisect leaves 1e-4 of a wide row unsettled before it renormalises.
TOLERANCE = {"entmax15": 2e-5, "entmax_bisect": 2e-4}
Function = Callable[[Tensor], Tensor]


def load_peers() -> dict[str, Function]:
    try:
        from entmax import entmax15, entmax_bisect
    except ImportError:
        print("the peer is missing: pip install entmax==1.3", file=sys.stderr)
        raise SystemExit(2) from None
    return {
        "entmax15": lambda scores: entmax15(scores, dim=-1),
        "entmax_bisect": lambda scores: entmax_bisect(scores, alpha=1.5, dim=-1),
    }


def ours(scores: Tensor) -> Tensor:
    return entmax(scores, alpha=1.5)


def forward_backward(function: Function, scores: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    leaf = scores.detach().requires_grad_()
    weights = function(leaf)
    weights.backward(grad)
    assert leaf.grad is not None
    return weights.detach(), leaf.grad


def gate(peers: dict[str, Function], scores: Tensor, grad: Tensor) -> list[str]:
    """Return what is wrong with our result on these inputs; empty when it may be timed."""
    wrong = []
    weights, gradient = forward_backward(ours, scores, grad)
    off = (weights.double().sum(-1) - 1).abs().max().item()
    if not off <= 1e-6:
        wrong.append(f"rows sum to 1 only within {off:.1e}")
    exact, exact_gradient = forward_backward(ours, scores.double(), grad.double())
    if not (weights - exact).abs().max().item() <= 1e-6:
        wrong.append("float32 weights differ from float64 by more than 1e-6")
    if not (gradient - exact_gradient).abs().max().item() <= 1e-5:
        wrong.append("float32 gradients differ from float64 by more than 1e-5")
    for name, peer in peers.items():
        theirs, their_gradient = forward_backward(peer, scores, grad)
        for what, a, b in (("weights", weights, theirs), ("gradient", gradient, their_gradient)):
            error = (a - b).abs().max().item()
            if not error <= TOLERANCE[name]:
                wrong.append(f"{what} differ from {name} by {error:.1e}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.entmax", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds per shape")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    peers = load_peers()
    rows = []
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(shape, generator=generator)
        grad = torch.randn(shape, generator=generator)
        wrong = gate(peers, scores, grad)
        if wrong:
            print(f"not timed, the check at {shape} failed: {'; '.join(wrong)}", file=sys.stderr)
            return 1
        calls = {
            name: partial(forward_backward, function, scores, grad)
            for name, function in {"lcg": ours, **peers}.items()
        }
        seconds = time_in_turn(calls, options.rounds)
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        ratios = {name: median_ratio(seconds[name], seconds["lcg"]) for name in peers}
        rows.append({"shape": list(shape), "seconds": middle, "ratios": ratios})

    names = list(peers)
    lines = []
    for row in rows:
        cells = [f"{row['seconds']['lcg'] * 1e3:.1f}"]
        for name in names:
            cells += [f"{row['seconds'][name] * 1e3:.1f}", f"{row['ratios'][name]:.1f}"]
        lines.append(["x".join(map(str, row["shape"])), *cells])
    met = all(row["ratios"][name] >= TARGETS[name] for row in rows for name in names)
    goals = ", ".join(f"{name} {factor:g}" for name, factor in TARGETS.items())
    publish(
        "entmax",
        f"α = 1.5, float32, forward + backward; times faster, goals: {goals}",
        ["rows x keys", "lcg ms", *(head for n in names for head in (f"{n} ms", "times faster"))],
        lines,
        {"alpha": 1.5, "targets": TARGETS, "met": met, "rows": rows},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
