"""The triton backend on a CUDA device against its peers: `python -m benchmarks.gpu [SECTION …]`.

sort: training of the authors' Sort model in the whole loop of `lcg train`, as it is by itself and
  uncompiled: steps per second.
short: forward and backward of short rows, those of Sort (130 tokens) among them.
attention: the same of causal attention at 1,024 to 131,072 tokens, without and with NAPE slopes;
  peers are the fused kernels that torch has for softmax.
model: the MQMTAR model of the ASEntmax paper (or `--run RUN`, a trained one) on one sequence of
  nominal length 65,536; its logits and verdicts are held against `reference` where that fits.
adasplash: attention against adasplash 0.2.2 (its second version for α = 1.5, its first for another
  α), which tunes 60 variants for each case: a minute each in bf16, a quarter of an hour in float32.
  By default therefore bf16 at 4,096 and 16,384 tokens with a head dimension of 64 alone.

Each section is a process, prints its rows as they come, and keeps what it has in
results/gpu_SECTION.md and .json. Before anything is timed, outputs and gradients of that type and
width are held against the reference backend; what is off is not timed. Attention is timed as a CUDA
graph, as `lcg train` runs it: what the device does, without the Python that asks for it.

`--rehearse` goes the same way on a CPU, through Triton's interpreter (TRITON_INTERPRET=1), in
sizes that mean nothing, and publishes nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.attention import adasplash, attention, short
from benchmarks.gpu.models import model, sort
from benchmarks.gpu.plan import REHEARSAL, TYPES, Plan
from benchmarks.gpu.results import Results
from benchmarks.report import positive
from lcg.attention.backends import TRITON
from lcg.attention.backends.triton import WIDEST
from lcg.runs.run import Run

SECTIONS: dict[str, Callable[[Plan, argparse.Namespace, Results], int]] = {
    section.__name__: section for section in (sort, short, attention, model, adasplash)
}


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = parse(words)
    except ValueError as error:  # of a run that cannot be read
        print(error, file=sys.stderr)
        return 2
    plan, refusal = planned(options)
    if refusal:
        print(refusal, file=sys.stderr)
        return 2
    if len(options.sections) == 1:
        [section] = options.sections
        return SECTIONS[section](plan, options, Results(section, plan))
    failed = 0
    others = [word for word in words if word not in SECTIONS]
    for section in options.sections:  # an error of the device stays in its process
        command = [sys.executable, "-m", "benchmarks.gpu", section, *others]
        print(f"# {section}", flush=True)
        failed |= bool(subprocess.run(command).returncode)
    return int(failed)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def several(word: str) -> tuple[str, ...]:
        return tuple(word.split(","))

    def numbers(word: str) -> tuple[int, ...]:
        return tuple(map(positive, several(word)))

    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=positive, default=10, help="fewer where a call is long")
    parser.add_argument("--lengths", type=numbers, help="of attention, as 1024,4096")
    parser.add_argument("--widths", type=numbers, help="head dimensions, as 32,64")
    parser.add_argument("--types", type=several, help="bf16,fp32")
    parser.add_argument("--run", type=Path, help="a trained run of MQMTAR for `model`")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on a CPU, unpublished")
    options = parser.parse_args(words)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    if options.types and not set(options.types) <= set(TYPES):
        parser.error(f"--types are {', '.join(TYPES)}")
    if options.widths and max(options.widths) > WIDEST:
        parser.error(f"--widths are at most {WIDEST}")
    if options.run and Run(options.run).config.task.name != "mqmtar":
        parser.error(f"--run {options.run} is no run of mqmtar")
    options.sections = options.sections or list(SECTIONS)
    return options


def planned(options: argparse.Namespace) -> tuple[Plan, str | None]:
    """The plan, and why it cannot be carried out here."""
    plan = REHEARSAL if options.rehearse else Plan()
    if options.rehearse:
        if os.environ.get("TRITON_INTERPRET") != "1":
            return plan, "--rehearse needs TRITON_INTERPRET=1 in the environment"
        options.rounds = 1
    elif not torch.cuda.is_available():
        return plan, "benchmarks.gpu needs a CUDA device; torch sees none"
    if not TRITON:
        return plan, "benchmarks.gpu needs triton: pip install 'lcg[triton]'"
    if "adasplash" in options.sections and len(options.sections) == 1:
        plan = replace(plan, types=("bf16",), lengths=(4096, 16384), widths=(64,))
    chosen = {name: getattr(options, name) for name in ("lengths", "widths", "types")}
    if options.types and not set(options.types) <= set(plan.types) | set(plan.peers):
        return plan, f"--types must be of {', '.join(plan.peers)} here"
    return replace(plan, **{name: value for name, value in chosen.items() if value}), None


if __name__ == "__main__":
    sys.exit(main())
