"""The triton backend on a CUDA device against its peers: `python -m benchmarks.gpu`.

Forward and backward of causal attention against flash attention (softmax) and, where it is
installed, adasplash 0.2.2; of short rows; and the forward pass of the MQMTAR model of the ASEntmax
paper at 65,536 tokens. Every output is held against the naive formula before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.attention.attend import Bias, attend
from lcg.attention.normalizers.entmax import Entmax
from lcg.config import load_config
from lcg.evaluation.scoring import score_teacher_forcing
from lcg.models.build import build_model
from positional.slopes import NAPE
from tasks.streams import eval_batch

LENGTHS = tuple(1024 * 2**i for i in range(8))
HEADS = 8
SPREAD = 6**0.5
"""Standard deviation of queries, as in 2502.12082."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1])
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device; torch sees none", file=sys.stderr)
        return 2
    wrong = gate()
    if wrong:
        print(f"not timed: {wrong}", file=sys.stderr)
        return 1
    lengths = [length for length in LENGTHS if length <= options.longest]
    rows: list[list[str]] = []
    data: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    for d in (32, 64):
        for dtype in (torch.bfloat16, torch.float32):
            for length in lengths:
                name = f"N={length} d={d} {str(dtype).removeprefix('torch.')}"
                measure(name, causal(1, length, d, dtype), options.rounds, rows, data)
    short = causal(128, 98, 32, torch.float32)
    measure("short rows: batch 128, N=98, d=32", short, options.rounds, rows, data)
    failed = paper_model(options.rounds, options.longest, rows, data)
    if failed:
        print(f"not timed: {failed}", file=sys.stderr)
        return 1
    publish(
        "gpu",
        f"The triton backend on {data['device']}: time of a peer / time of triton",
        ["case", "triton ms", "peer", "peer ms", "times faster"],
        rows,
        data,
    )
    return 0


def problem(batch: int, length: int, d: int, dtype: torch.dtype) -> tuple[list[Tensor], Bias]:
    """Queries, keys and values with gradients, and a causal bias without slopes."""
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (batch, HEADS, length, d)
    q, k, v = (torch.randn(shape, generator=generator, device="cuda") for _ in range(3))
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (q * SPREAD, k, v)]
    positions = torch.arange(length, device="cuda")
    return leaves, Bias(positions, positions)


def gate() -> str | None:
    """What is wrong with the results of the triton backend on this device, or None."""
    slopes = NAPE().slopes(HEADS).cuda()
    for dtype, tolerance in TOLERANCE.items():
        for length in (98, 1500):
            for used in (None, slopes):
                leaves, bias = problem(2, length, 32, dtype)
                bias = bias._replace(slopes=used)
                found = results(leaves, bias, "triton")
                exact = [leaf.detach().float().requires_grad_() for leaf in leaves]
                for got, want in zip(found, results(exact, bias, "reference"), strict=True):
                    off = float((got.float() - want).abs().max() / want.abs().max())
                    if not off <= tolerance:
                        return f"triton at N={length}, {dtype} is off by {off:.1e}"
    return None


def results(leaves: list[Tensor], bias: Bias, backend: str) -> list[Tensor]:
    """The output and the gradients."""
    out = attend(*leaves, Entmax(1.5), bias, None, backend)
    return [out, *torch.autograd.grad(out.float().square().sum(), leaves)]


def causal(batch: int, length: int, d: int, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Forward and backward by triton, without and with NAPE slopes, and by the peers."""
    leaves, bias = problem(batch, length, d, dtype)
    sloped = bias._replace(slopes=NAPE().slopes(HEADS).cuda())
    cotangent = torch.ones_like(leaves[0])

    def timed(function: Callable[..., Tensor]) -> Callable[[], None]:
        def call() -> None:
            torch.autograd.grad(function(*leaves), leaves, cotangent)
            torch.cuda.synchronize()

        return call

    functions = {
        "triton": timed(lambda q, k, v: attend(q, k, v, Entmax(1.5), bias, None, "triton")),
        "triton with NAPE": timed(
            lambda q, k, v: attend(q, k, v, Entmax(1.5), sloped, None, "triton")
        ),
        "SDPA": timed(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    }
    try:
        from adasplash import adasplash
    except ImportError:
        return functions
    if length & (length - 1) == 0:  # it takes no other length
        functions["adasplash"] = timed(lambda q, k, v: adasplash(q, k, v, is_causal=True))
    return functions


def measure(name: str, functions: dict, rounds: int, rows: list, data: dict) -> None:
    """Time the functions in turn, and add a row for each peer of the first."""
    try:
        seconds = time_in_turn(functions, rounds)
    except torch.cuda.OutOfMemoryError:
        rows.append([name, "out of memory", "", "", ""])
        return
    ours, *peers = functions
    data[name] = {"seconds": seconds, "ratios": {}}
    for peer in peers:
        ratio = median_ratio(seconds[peer], seconds[ours])
        data[name]["ratios"][peer] = ratio
        times = [f"{1000 * statistics.median(seconds[key]):.3f}" for key in (ours, peer)]
        rows.append([name, times[0], peer, times[1], f"{ratio:.2f}"])


def paper_model(rounds: int, longest: int, rows: list, data: dict) -> str | None:
    """The MQMTAR model, untrained: verdicts as those of reference, then times at the longest."""
    models = {}
    for backend in ("triton", "blockwise", "reference"):
        config = load_config(["experiment=paper/mqmtar", f"attention.backend={backend}"])
        torch.manual_seed(0)
        models[backend] = build_model(config).cuda().eval()
        models[backend].load_state_dict(models["triton"].state_dict())

    def score(backend: str, length: int) -> Any:
        batch = eval_batch(config.task, 0, "test", length, 0, 1)
        tensors = [torch.from_numpy(x).cuda() for x in (batch.inputs, batch.labels)]
        return score_teacher_forcing(models[backend], *tensors)

    for length in (64, 256, 1024, 4096):
        ours, exact = score("triton", length), score("reference", length)
        same = (ours.correct, ours.right) == (exact.correct, exact.right)
        if not same and not exact.close_calls:
            return f"MQMTAR at {length}: {ours} by triton, {exact} by reference"
    length = min(longest, 65536)
    functions = {
        name: lambda name=name: (score(name, length), torch.cuda.synchronize())
        for name in ("triton", "blockwise")
    }
    measure(f"MQMTAR model, forward, N={length}", functions, min(rounds, 3), rows, data)
    return None


if __name__ == "__main__":
    sys.exit(main())
