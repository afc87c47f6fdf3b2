"""Long attention on a CPU, `blockwise` against its peers: `python -m benchmarks.attention`.

First the outputs and gradients must be those of the reference backend. Then, for the attention of
the MQMTAR paper model (16 heads of 32, causal, ASEntmax' 1.5-entmax), times in one process:

- at 4,096 tokens against the reference backend and `F.scaled_dot_product_attention`, which is
  softmax without a bias: all heads without position (NoPE), and NAPE;
- slope heads alone at 16,384 and 32,768 tokens: their time is to grow linearly.

And, each in a process of its own, whose peak memory is measured: one forward pass of that model
(4 layers, width 512) at 12 scored positions of one sequence of random tokens, with random weights,
and with `--run RUN` also of a trained run's model, on test samples of its task in a row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.report import median_ratio, positive, publish, time_in_turn
from lcg.attention.backends import blockwise
from lcg.attention.functional import Bias, attend
from lcg.attention.normalizers.entmax import Entmax
from lcg.positional.groups import NAPE
from lcg.runs.run import Run

HEADS, WIDTH, SCORED = 16, 32, 12
MODEL_LIMITS = {16384: 20.0, 65536: 240.0}
MEMORY_LIMIT = 2.0  # GiB


def inputs(tokens: int, heads: int = HEADS) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, tokens, WIDTH) for _ in range(3)]


def call(parts: list[torch.Tensor], slopes: torch.Tensor | None, backend: str) -> torch.Tensor:
    positions = torch.arange(parts[0].shape[2])
    return attend(*parts, Entmax(), Bias(positions, positions, slopes), backend=backend)


def largest_difference(tokens: int = 2048) -> float:
    """Compare outputs and gradients of the two backends, with NAPE."""
    found = []
    blockwise.KEPT = 0  # tiles in the backward pass too
    for backend in ("blockwise", "reference"):
        parts = [part.requires_grad_() for part in inputs(tokens)]
        out = call(parts, NAPE().slopes(HEADS), backend)
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        found.append([out, *torch.autograd.grad(out, parts, cotangent)])
    return max((a - b).abs().max().item() for a, b in zip(*found, strict=True))


@torch.no_grad()
def against_peers(rounds: int, tokens: int = 4096) -> tuple[list[list[str]], dict]:
    parts = inputs(tokens)
    nope, nape = torch.zeros(HEADS), NAPE().slopes(HEADS)
    seconds = time_in_turn(
        {
            "NoPE": lambda: call(parts, nope, "blockwise"),
            "NAPE": lambda: call(parts, nape, "blockwise"),
            "reference": lambda: call(parts, nape, "reference"),
            "SDPA": lambda: torch.nn.functional.scaled_dot_product_attention(
                *parts, is_causal=True
            ),
        },
        rounds,
    )
    pairs = [
        ("reference / NAPE", "reference", "NAPE", "≥ 3"),
        ("NoPE / SDPA", "NoPE", "SDPA", "≤ 3"),
        ("NAPE / SDPA", "NAPE", "SDPA", "≤ 2"),
    ]
    rows = []
    for name, above, below, goal in pairs:
        ratio = median_ratio(seconds[above], seconds[below])
        middle = [statistics.median(seconds[key]) for key in (above, below)]
        rows.append(
            [
                f"{name}, {tokens} tokens",
                f"{middle[0]:.2f} / {middle[1]:.2f} s",
                f"{ratio:.2f}",
                goal,
            ]
        )
    return rows, seconds


@torch.no_grad()
def slope_heads(rounds: int) -> tuple[list[list[str]], dict]:
    slopes = NAPE().slopes(HEADS)[: HEADS // 2]
    long, longer = inputs(16384, HEADS // 2), inputs(32768, HEADS // 2)
    seconds = time_in_turn(
        {
            "16384": lambda: call(long, slopes, "blockwise"),
            "32768": lambda: call(longer, slopes, "blockwise"),
        },
        rounds,
    )
    ratio = median_ratio(seconds["32768"], seconds["16384"])
    middle = [statistics.median(seconds[key]) for key in ("32768", "16384")]
    text = f"{middle[0]:.2f} / {middle[1]:.2f} s"
    return [["8 slope heads, 32768 / 16384 tokens", text, f"{ratio:.2f}", "≤ 2.3"]], seconds


def resident_gib(which: str) -> float:
    """This process's memory now (VmRSS) or at its peak since the last reset (VmHWM)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[which].split()[0]) / 2**20


@torch.no_grad()
def alone(case: str, tokens: int, run: str | None) -> dict:
    """Run one pass in a process of its own and print its seconds and its peak memory."""
    if case == "model":
        step = model_pass(tokens, run)
    else:
        parts = inputs(tokens)
        nape, nope = NAPE().slopes(HEADS), torch.zeros(HEADS)
        slopes, backend = {
            "NAPE": (nape, "blockwise"),
            "NoPE": (nope, "blockwise"),
            "reference": (nape, "reference"),
        }[case]
        step = lambda: call(parts, slopes, backend)  # noqa: E731
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing torch
    before = resident_gib("VmRSS")
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "before": before, "peak": resident_gib("VmHWM")}


def model_pass(tokens: int, run: str | None):
    """One pass, ready to be run: random tokens, or what a trained model knows."""
    from lcg.config import load_config
    from lcg.evaluation.evaluate import load_model
    from lcg.models.transformer import build_model

    if run is None:
        words = ["experiment=paper/mqmtar", "attention=asentmax", "position=nape"]
        torch.manual_seed(0)
        model = build_model(load_config(words))
        vocabulary, draw = model.head.out_features, torch.Generator().manual_seed(0)
        sequence = torch.randint(vocabulary, (1, tokens), generator=draw)
    else:
        config = Run(Path(run)).config
        model, _ = load_model(Path(run), config)
        sequence = test_samples(config, tokens)
    select = torch.arange(tokens - SCORED, tokens)
    return lambda: model.eval()(sequence, select)


def test_samples(config, tokens: int) -> torch.Tensor:
    """Test samples of the longest length that the run was evaluated at, in a row: [1 tokens]."""
    from lcg.tasks.streams import BLOCK, EvalStream

    stream, found, count = EvalStream(config.task, 0, "test", max(config.evaluation.lengths)), [], 0
    while count < tokens:
        found.append(torch.from_numpy(stream.batch(len(found) * BLOCK, BLOCK).inputs).flatten())
        count += len(found[-1])
    return torch.cat(found)[None, :tokens]


def in_child(case: str, tokens: int, run: str | None = None) -> dict:
    command = [
        sys.executable,
        "-m",
        "benchmarks.attention",
        "--case",
        case,
        "--tokens",
        str(tokens),
    ]
    command += ["--threads", str(torch.get_num_threads())] + (["--run", run] if run else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def memory(tokens: int = 4096) -> tuple[list[list[str]], dict]:
    """Memory that attention takes beyond its inputs, in GiB."""
    cases = [("NAPE", tokens), ("reference", tokens), ("NoPE", 16384), ("NoPE", 32768)]
    found = {f"{case} {count}": in_child(case, count) for case, count in cases}
    taken = {name: one["peak"] - one["before"] for name, one in found.items()}
    rows = []
    for name, above, below, goal in [
        (
            f"memory NAPE / reference, {tokens} tokens",
            f"NAPE {tokens}",
            f"reference {tokens}",
            "≤ 1/8",
        ),
        ("memory NoPE, 32768 / 16384 tokens", "NoPE 32768", "NoPE 16384", "≤ 2 (linear)"),
    ]:
        text = f"{taken[above]:.3f} / {taken[below]:.3f} GiB"
        rows.append([name, text, f"{taken[above] / taken[below]:.3f}", goal])
    return rows, found


def models(lengths: list[int], runs: list[str]) -> tuple[list[list[str]], dict]:
    rows, data = [], {}
    for run in [None, *runs]:
        for tokens in lengths:
            found = in_child("model", tokens, run)
            name = "MQMTAR paper model, random weights" if run is None else Path(run).name
            data[f"{name} {tokens}"] = found
            limit = MODEL_LIMITS.get(tokens)
            goal = f"≤ {limit:g} s, ≤ {MEMORY_LIMIT:g} GiB" if limit else ""
            peak = f"{found['peak']:.2f} GiB"
            rows.append([f"{name}, {tokens} tokens", f"{found['seconds']:.1f} s", peak, goal])
    return rows, data


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=positive, help="of torch; default: as many as it takes")
    parser.add_argument(
        "--rounds", type=positive, default=5, help="of each comparison (%(default)s)"
    )
    parser.add_argument(
        "--lengths",
        type=positive,
        nargs="*",
        metavar="TOKENS",
        default=list(MODEL_LIMITS),
        help="of one pass of the model (%(default)s)",
    )
    parser.add_argument(
        "--run", action="append", default=[], help="directory of a trained run; may be repeated"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.lengths, default=SCORED) < SCORED:
        parser.error(f"--lengths must be at least {SCORED}, the positions that are scored")
    for run in options.run:
        try:
            _ = Run(Path(run)).config
        except ValueError as error:
            parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.case:
        run = options.run[0] if options.run else None
        print(json.dumps(alone(options.case, options.tokens, run)))
        return 0
    difference = largest_difference()
    if difference > 1e-4:
        print(f"not timed: blockwise differs from reference by {difference:.1e}", file=sys.stderr)
        return 1
    rows, data = [], {"difference": difference}
    for name, (more, found) in {
        "peers": against_peers(options.rounds),
        "slopes": slope_heads(options.rounds),
        "memory": memory(),
        "models": models(options.lengths, options.run),
    }.items():
        rows += more
        data[name] = found
    title = "Long attention: 1.5-entmax, 16 heads of 32, causal, one sequence"
    publish("attention", title, ["what", "measured", "ratio or peak", "goal"], rows, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
