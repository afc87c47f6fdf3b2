"""The triton backend on a CUDA device against its peers: `python -m benchmarks.gpu`.

Forward and backward of causal attention against flash attention (softmax) and, where it is
installed, adasplash 0.2.2 (its second version for α = 1.5, its first for another α); of short rows;
training of the Sort model in the whole loop of `lcg train`, as it is by itself and uncompiled; and
the forward pass of the MQMTAR model of the ASEntmax paper at 65,536 tokens. Our outputs and
gradients are held against the naive formula before anything is timed, the model's verdicts before
it is. Attention is timed as a CUDA graph, as `lcg train` runs it: what the device does, without the
Python that asks for it.

`--rehearse` goes the same way on a CPU, through Triton's interpreter (TRITON_INTERPRET=1), in
sizes that mean nothing, and publishes nothing.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
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
from lcg.training.run import train
from positional.slopes import NAPE
from tasks.streams import eval_batch


@dataclass(frozen=True)
class Plan:
    """What is timed, and where."""

    device: str = "cuda"
    tolerance: tuple[tuple[torch.dtype, float], ...] = (
        (torch.bfloat16, 2e-2),
        (torch.float32, 1e-4),
    )
    """How far outputs and gradients of a type may be off, as a share of the largest."""
    lengths: tuple[int, ...] = tuple(1024 * 2**i for i in range(8))
    widths: tuple[int, ...] = (32, 64)
    heads: int = 8
    alpha: float = 1.25
    """Another than 1.5, at `alpha_lengths`."""
    alpha_lengths: tuple[int, ...] = (4096, 16384)
    short: tuple[int, int] = (128, 98)
    """Sequences and tokens of short rows."""
    checked: tuple[int, ...] = (98, 1500)
    """Lengths at which outputs and gradients are held against `reference`."""
    climbed: tuple[int, ...] = (64, 256, 1024, 4096)
    """Lengths at which the MQMTAR model must say what it says with `reference`."""
    steps: int = 1000
    """Of Sort training."""
    precisions: tuple[str, ...] = ("bf16-true", "bf16-mixed", "32-true")
    """Of Sort training; the preset's own first."""
    words: tuple[str, ...] = ()
    """Overrides of the models' configs."""

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


REHEARSAL = Plan(
    device="cpu",
    tolerance=((torch.float32, 1e-4),),  # the interpreter cannot form bfloat16 products
    lengths=(32, 64),
    widths=(16,),
    heads=2,
    alpha_lengths=(32,),
    short=(2, 9),
    checked=(9, 40),
    climbed=(8,),
    steps=6,
    precisions=("32-true",),
    words=(
        *("data.batch_size=2", "data.min_length=4", "data.max_length=6", "validation.lengths=4"),
        "validation.monitor=4",
        *("evaluation.lengths=4", "model.layers=1", "model.d_model=32", "model.heads=2"),
        *("model.head_dim=16", "model.d_ff=32"),
    ),
)
SPREAD = 6**0.5
"""Standard deviation of queries, as in 2502.12082."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--longest", type=int, default=Plan().lengths[-1])
    parser.add_argument("--rehearse", action="store_true", help="tiny, on a CPU, unpublished")
    options = parser.parse_args(arguments)
    plan = REHEARSAL if options.rehearse else Plan()
    if options.rehearse:
        if os.environ.get("TRITON_INTERPRET") != "1":
            print("--rehearse needs TRITON_INTERPRET=1 in the environment", file=sys.stderr)
            return 2
        options.rounds = 1
    elif not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device; torch sees none", file=sys.stderr)
        return 2
    lengths = [length for length in plan.lengths if length <= options.longest]
    if not lengths:
        print(f"--longest must be at least {plan.lengths[0]}", file=sys.stderr)
        return 2
    if not options.rehearse and not _has_adasplash():
        print("adasplash is not installed and is left out: pip install adasplash==0.2.2")
    wrong = gate(plan)
    if wrong:
        print(f"not timed: {wrong}", file=sys.stderr)
        return 1
    rows: list[list[str]] = []
    data: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if plan.device == "cuda" else "cpu"
    }
    for d in plan.widths:
        for dtype, _ in plan.tolerance:
            for length in lengths:
                name = f"N={length} d={d} {str(dtype).removeprefix('torch.')}"
                measure(plan, name, causal(plan, 1, length, d, dtype), options.rounds, rows, data)
    for length in (length for length in plan.alpha_lengths if length <= options.longest):
        name = f"α={plan.alpha} N={length} d={plan.widths[-1]} float32"
        functions = causal(plan, 1, length, plan.widths[-1], torch.float32, plan.alpha)
        measure(plan, name, functions, options.rounds, rows, data)
    batch, tokens = plan.short
    for dtype, _ in plan.tolerance:
        name = f"short rows: batch {batch}, N={tokens} {str(dtype).removeprefix('torch.')}"
        short = causal(plan, batch, tokens, plan.widths[0], dtype)
        measure(plan, name, short, options.rounds, rows, data)
    for precision in plan.precisions:
        sort_training(plan, precision, rows, data)
    failed = paper_model(plan, options.rounds, lengths[-1], rows, data)
    if failed:
        print(f"not timed: {failed}", file=sys.stderr)
        return 1
    if options.rehearse:
        print("\n".join(" | ".join(row) for row in rows))
        return 0
    publish(
        "gpu",
        f"The triton backend on {data['device']}: time of a peer / time of triton",
        ["case", "triton ms", "peer", "peer ms", "times faster"],
        rows,
        data,
    )
    return 0


def problem(
    plan: Plan, batch: int, length: int, d: int, dtype: torch.dtype
) -> tuple[list[Tensor], Bias]:
    """Queries, keys and values with gradients, and a causal bias without slopes."""
    generator = torch.Generator(plan.device).manual_seed(0)
    shape = (batch, plan.heads, length, d)
    q, k, v = (torch.randn(shape, generator=generator, device=plan.device) for _ in range(3))
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (q * SPREAD, k, v)]
    positions = torch.arange(length, device=plan.device)
    return leaves, Bias(positions, positions)


def gate(plan: Plan) -> str | None:
    """What is wrong with the results of the triton backend on this device, or None."""
    slopes = NAPE().slopes(plan.heads).to(plan.device)
    for dtype, tolerance in plan.tolerance:
        for length in plan.checked:
            for used, alpha in itertools.product((None, slopes), (1.5, plan.alpha)):
                leaves, bias = problem(plan, 2, length, plan.widths[0], dtype)
                bias = bias._replace(slopes=used)
                found = results(leaves, bias, alpha, "triton")
                exact = [leaf.detach().float().requires_grad_() for leaf in leaves]
                wanted = results(exact, bias, alpha, "reference")
                for got, want in zip(found, wanted, strict=True):
                    off = float((got.float() - want).abs().max() / want.abs().max())
                    if not off <= tolerance:
                        return f"triton at N={length}, {dtype} is off by {off:.1e}"
    return None


def results(leaves: list[Tensor], bias: Bias, alpha: float, backend: str) -> list[Tensor]:
    """The output and the gradients."""
    out = attend(*leaves, Entmax(alpha), bias, None, backend)
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), leaves)]


def _has_adasplash() -> bool:
    return importlib.util.find_spec("adasplash") is not None


def causal(
    plan: Plan, batch: int, length: int, d: int, dtype: torch.dtype, alpha: float = 1.5
) -> dict[str, Callable[[], Any]]:
    """Forward and backward by triton, without and with NAPE slopes, and by the peers."""
    leaves, bias = problem(plan, batch, length, d, dtype)
    sloped = bias._replace(slopes=NAPE().slopes(plan.heads).to(plan.device))
    cotangent = torch.ones_like(leaves[0])

    def timed(function: Callable[..., Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, cotangent)

    functions = {
        "triton": timed(lambda q, k, v: attend(q, k, v, Entmax(alpha), bias, None, "triton")),
        "triton with NAPE": timed(
            lambda q, k, v: attend(q, k, v, Entmax(alpha), sloped, None, "triton")
        ),
        "SDPA": timed(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    }
    power_of_two = length & (length - 1) == 0  # it takes no other length
    if plan.device == "cuda" and power_of_two and _has_adasplash():
        from adasplash import adasplash  # α = 1.5 is its second version, any other its first

        functions["adasplash"] = timed(
            lambda q, k, v: adasplash(q, k, v, alpha=alpha, is_causal=True)
        )
    return functions


def measure(plan: Plan, name: str, functions: dict, rounds: int, rows: list, data: dict) -> None:
    """Time the functions in turn, and add a row for each peer of the first."""
    ready = {key: recorded(plan, f"{name}, {key}", call) for key, call in functions.items()}
    ours = next(iter(functions))
    if ready[ours] is None:
        rows.append([name, "out of memory", "", "", ""])
        return
    seconds = time_in_turn({key: call for key, call in ready.items() if call}, rounds)
    data[name] = {"seconds": seconds, "ratios": {}}
    mine = f"{1000 * statistics.median(seconds[ours]):.3f}"
    for peer in list(functions)[1:]:
        if peer not in seconds:
            rows.append([name, mine, peer, "out of memory", ""])
            continue
        ratio = median_ratio(seconds[peer], seconds[ours])
        data[name]["ratios"][peer] = ratio
        theirs = f"{1000 * statistics.median(seconds[peer]):.3f}"
        rows.append([name, mine, peer, theirs, f"{ratio:.2f}"])


def recorded(plan: Plan, name: str, call: Callable[[], Any]) -> Callable[[], None] | None:
    """The call as a CUDA graph where it can be one, and waited for; None if memory is short."""

    def waited(run: Callable[[], Any]) -> Callable[[], None]:
        def run_to_its_end() -> None:
            run()
            plan.synchronize()

        return run_to_its_end

    if plan.device != "cuda":
        return waited(call)
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, tunes and takes memory
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return waited(graph.replay)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    except RuntimeError as error:
        print(f"{name} is no CUDA graph and is timed with its Python: {error}", file=sys.stderr)
        torch.cuda.synchronize()
        return waited(call)


def sort_training(plan: Plan, precision: str, rows: list, data: dict) -> None:
    """Steps per second of `lcg train` on the authors' Sort model, logging and all."""
    found = {}
    for mode in ("auto", "none"):
        with tempfile.TemporaryDirectory() as folder:
            words = ["experiment=repo/sort", f"runs={folder}", f"trainer.compile={mode}"]
            words += [f"trainer.precision={precision}", f"trainer.steps={plan.steps}"]
            words += [f"trainer.log_every={plan.steps // 5}", f"validation.every={plan.steps}"]
            words += ["validation.samples=8", "evaluation.after_training=false"]
            words += ["wandb.mode=disabled", "trainer.checkpoint_every=100000", *plan.words]
            outcome = train(load_config(words), progress=False)
            with (outcome.directory / "metrics.csv").open() as lines:
                read = [row["train/steps_per_second"] for row in csv.DictReader(lines)]
        speeds = [float(speed) for speed in read if speed]
        found[mode] = statistics.median(speeds[1:])  # the first are slow: it compiles
    name = f"Sort training, ASEntmax, {precision}"
    data[name] = found
    times = [f"{found[key]:.0f} steps/s" for key in ("auto", "none")]
    rows.append([name, times[0], "uncompiled", times[1], f"{found['auto'] / found['none']:.2f}"])


def paper_model(plan: Plan, rounds: int, longest: int, rows: list, data: dict) -> str | None:
    """The MQMTAR model, untrained: verdicts as those of reference, then times at the longest."""
    models = {}
    for backend in ("triton", "blockwise", "reference"):
        words = ["experiment=paper/mqmtar", f"attention.backend={backend}"]
        config = load_config([*words, *(word for word in plan.words if word.startswith("model."))])
        torch.manual_seed(0)
        models[backend] = build_model(config).to(plan.device).eval()
        models[backend].load_state_dict(models["triton"].state_dict())

    def score(backend: str, length: int) -> Any:
        batch = eval_batch(config.task, 0, "test", length, 0, 1)
        tensors = [torch.from_numpy(x).to(plan.device) for x in (batch.inputs, batch.labels)]
        return score_teacher_forcing(models[backend], *tensors)

    for length in plan.climbed:
        ours, exact = score("triton", length), score("reference", length)
        same = (ours.correct, ours.right) == (exact.correct, exact.right)
        if not same and not exact.close_calls:
            return f"MQMTAR at {length}: {ours} by triton, {exact} by reference"
    length = min(longest, 65536)
    functions = {
        name: lambda name=name: (score(name, length), plan.synchronize())
        for name in ("triton", "blockwise")
    }
    seconds = time_in_turn(functions, min(rounds, 3))  # reads results: no CUDA graph
    ratio = median_ratio(seconds["blockwise"], seconds["triton"])
    name = f"MQMTAR model, forward, N={length}"
    data[name] = {"seconds": seconds, "ratios": {"blockwise": ratio}}
    times = [f"{1000 * statistics.median(seconds[key]):.3f}" for key in functions]
    rows.append([name, times[0], "blockwise", times[1], f"{ratio:.2f}"])
    return None


if __name__ == "__main__":
    sys.exit(main())
