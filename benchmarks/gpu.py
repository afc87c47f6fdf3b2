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

Each section is a process, prints its rows as they come, and keeps what it has in
results/gpu_SECTION.md and .json. Before anything is timed, outputs and gradients of that type and
width are held against the naive formula; what is off is not timed. Attention is timed as a CUDA
graph, as `lcg train` runs it: what the device does, without the Python that asks for it.

`--rehearse` goes the same way on a CPU, through Triton's interpreter (TRITON_INTERPRET=1), in
sizes that mean nothing, and publishes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import importlib.util
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.graphs import Call, Unready, recorded, sampled
from benchmarks.report import median_ratio, publish, time_in_turn
from lcg.attention.attend import Bias, attend
from lcg.attention.backends.triton import WIDEST
from lcg.attention.normalizers.entmax import Entmax
from lcg.config import load_config
from lcg.evaluation.files import read_config
from lcg.evaluation.run import load_model
from lcg.evaluation.scoring import score_teacher_forcing, scored_positions
from lcg.models.build import build_model
from lcg.training.run import train
from positional.slopes import NAPE
from tasks.streams import eval_batch

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCE = {"bf16": 2e-2, "fp32": 1e-4}
"""How far outputs and gradients of a type may be off, as a share of the largest."""
PEERS = {
    "bf16": {
        "SDPA flash": SDPBackend.FLASH_ATTENTION,
        "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    },
    "fp32": {"SDPA efficient": SDPBackend.EFFICIENT_ATTENTION},
}
"""What torch has for softmax: neither of the first two takes float32."""
SPREAD = 6**0.5
"""Standard deviation of queries, as in 2502.12082."""
HEADER = ["case", "triton", "peer", "of the peer", "times faster"]


@dataclass(frozen=True)
class Plan:
    """What is timed, and where."""

    device: str = "cuda"
    types: tuple[str, ...] = ("bf16", "fp32")
    lengths: tuple[int, ...] = tuple(1024 * 2**i for i in range(8))
    widths: tuple[int, ...] = (64, 32)
    heads: int = 8
    alpha: float = 1.25
    """Another than 1.5, at `alpha_lengths` in float32."""
    alpha_lengths: tuple[int, ...] = (4096, 16384)
    short: tuple[tuple[int, int], ...] = ((128, 98), (128, 130))
    """Sequences and tokens of short rows."""
    checked: tuple[tuple[int, int], ...] = ((2, 98), (2, 130), (2, 1500), (1, 4096))
    """Sequences and tokens at which outputs and gradients are held against `reference`; at the last
    two blocks of queries look for candidates together."""
    climbed: tuple[int, ...] = (64, 256, 1024, 4096)
    """Nominal lengths at which the MQMTAR model must say what it says with `reference`."""
    blockwise: int = 16384
    """The longest nominal length at which it is timed with `blockwise`."""
    steps: int = 1000
    """Of Sort training."""
    precisions: tuple[str, ...] = ("bf16-true", "bf16-mixed", "32-true")
    """Of Sort training; the preset's own first."""
    peers: dict[str, dict[str, SDPBackend]] = field(default_factory=lambda: PEERS)
    words: tuple[str, ...] = ()
    """Overrides of the models' configs."""

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


REHEARSAL = Plan(
    device="cpu",
    types=("fp32",),  # the interpreter cannot form bfloat16 products
    lengths=(32, 64),
    widths=(16,),
    heads=2,
    alpha_lengths=(32,),
    short=((2, 9),),
    checked=((1, 9), (1, 40)),
    climbed=(8,),
    blockwise=32,
    steps=6,
    precisions=("32-true",),
    peers={"fp32": {"SDPA": SDPBackend.MATH}},
    words=(
        *("data.batch_size=2", "data.min_length=4", "data.max_length=6", "validation.lengths=4"),
        *("validation.monitor=4", "trainer.accelerator=cpu"),
        *("evaluation.lengths=4", "model.layers=1", "model.d_model=32", "model.heads=2"),
        *("model.head_dim=16", "model.d_ff=32"),
    ),
)


class Results:
    """The rows of a section: each is printed, and what there is so far is kept."""

    def __init__(self, section: str, plan: Plan) -> None:
        self.section, self.kept = section, plan.device == "cuda"
        self.rows: list[list[str]] = []
        self.data: dict[str, Any] = {"versions": versions()}
        if self.kept:
            self.data["device"] = torch.cuda.get_device_name()

    def add(self, name: str, row: list[str], data: dict[str, Any]) -> None:
        """A row of HEADER but for its first column, and what it was made of."""
        if not self.rows:
            print(" | ".join(HEADER))
        self.rows.append([name, *row])
        self.data.setdefault(name, {}).update(data)
        print(" | ".join(self.rows[-1]), flush=True)
        if self.kept:
            title = f"{self.section}: the triton backend on {self.data['device']}"
            publish(f"gpu_{self.section}", title, HEADER, self.rows, self.data, said=False)


def versions() -> dict[str, str | None]:
    """Of what is compared."""
    found = {}
    for name in ("torch", "triton", "adasplash"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


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

    def positive(word: str) -> int:
        if not word.isdecimal() or int(word) < 1:
            raise argparse.ArgumentTypeError(f"{word!r} is not a positive number")
        return int(word)

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
    if options.run and read_config(options.run).task.name != "mqmtar":
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
    if "adasplash" in options.sections and len(options.sections) == 1:
        plan = replace(plan, types=("bf16",), lengths=(4096, 16384), widths=(64,))
    chosen = {name: getattr(options, name) for name in ("lengths", "widths", "types")}
    if options.types and not set(options.types) <= set(plan.types) | set(plan.peers):
        return plan, f"--types must be of {', '.join(plan.peers)} here"
    return replace(plan, **{name: value for name, value in chosen.items() if value}), None


# ---- attention


def attention(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """Long rows, by types, widths and lengths."""
    wrong = 0
    for name, d in itertools.product(plan.types, plan.widths):
        if not passed(plan, name, d, 1.5):
            wrong += 1
            continue
        for length in plan.lengths:
            functions = causal(plan, 1, length, d, name) | softmax(plan, 1, length, d, name)
            compare(plan, f"N={length} d={d} {name}", functions, options.rounds, results)
    d, name = plan.widths[0], "fp32"
    if name in plan.types and passed(plan, name, d, plan.alpha):
        for length in plan.alpha_lengths:
            functions = causal(plan, 1, length, d, name, plan.alpha)
            functions |= softmax(plan, 1, length, d, name)
            label = f"α={plan.alpha} N={length} d={d} {name}"
            compare(plan, label, functions, options.rounds, results)
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
            label = f"batch {batch}, N={length} d={d} {name}"
            compare(plan, label, functions, options.rounds, results)
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
            label = f"α={alpha} N={length} d={d} {name}"
            # Its first version asks the device how much there is to do: no graph can hold that.
            compare(plan, label, functions, options.rounds, results, capture=alpha == 1.5)
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
    """Whether outputs and gradients of the triton backend are right; says what is not."""
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
    name: str,
    functions: dict[str, Call],
    rounds: int,
    results: Results,
    capture: bool = True,
) -> None:
    """Time the functions in turn; a row for each other of them beside the first."""
    ready: dict[str, tuple[Call, int]] = {}
    missing: dict[str, str] = {}
    longest = 0.0
    for key, call in functions.items():
        try:
            if plan.device == "cuda":
                own = capture or key.startswith("triton")
                call = recorded(f"{name}, {key}", call, own)
            sample, times, once = sampled(call, plan.synchronize)
            ready[key], longest = (sample, times), max(longest, once)
        except Unready as reason:
            missing[key] = str(reason)
    ours, *peers = functions
    if ours in missing:
        results.add(name, [missing[ours], "", "", ""], {"missing": missing})
        return
    fewer = max(3, min(rounds, int(2 / longest))) if longest else rounds
    samples = {key: sample for key, (sample, _) in ready.items()}
    seconds = {
        key: [one / ready[key][1] for one in found]
        for key, found in time_in_turn(samples, min(rounds, fewer)).items()
    }
    data: dict[str, Any] = {"seconds": seconds, "ratios": {}, "missing": missing}
    mine = milliseconds(seconds[ours])
    for peer in peers:
        if peer in missing:
            results.add(name, [mine, peer, missing[peer], ""], data)
            continue
        ratio = data["ratios"][peer] = median_ratio(seconds[peer], seconds[ours])
        results.add(name, [mine, peer, milliseconds(seconds[peer]), f"{ratio:.2f}"], data)


def milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.3f} ms"


# ---- whole models


def sort(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """Steps per second of `lcg train` on the authors' Sort model, logging and all."""
    for precision in plan.precisions:
        found, compiled = {}, True
        for mode in ("auto", "none"):
            said = io.StringIO()
            try:
                with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
                    outcome = train(sort_config(plan, precision, mode, folder), progress=False)
                    found[mode] = statistics.median(list(speeds(outcome.directory))[1:])
            finally:
                print(said.getvalue(), end="", file=sys.stderr, flush=True)
            compiled &= "cannot compile" not in said.getvalue()
        name = f"Sort, ASEntmax, {precision}" + ("" if compiled else ", could not be compiled")
        times = [f"{found[mode]:.0f} steps/s" for mode in ("auto", "none")]
        ratio = found["auto"] / found["none"]
        data = {"steps_per_second": found, "compiled": compiled}
        results.add(name, [times[0], "uncompiled", times[1], f"{ratio:.2f}"], data)
    return 0


def sort_config(plan: Plan, precision: str, mode: str, folder: str) -> Any:
    words = ["experiment=repo/sort", f"runs={folder}", f"trainer.compile={mode}"]
    words += [f"trainer.precision={precision}", f"trainer.steps={plan.steps}"]
    words += [f"trainer.log_every={plan.steps // 5}", f"validation.every={plan.steps}"]
    words += ["validation.samples=8", "evaluation.after_training=false"]
    words += ["wandb.mode=disabled", "trainer.checkpoint_every=100000", *plan.words]
    return load_config(words)


def speeds(directory: Path) -> Iterator[float]:
    """Steps per second, row by row; the first are slow, as torch compiles."""
    with (directory / "metrics.csv").open() as lines:
        for row in csv.DictReader(lines):
            if row["train/steps_per_second"]:
                yield float(row["train/steps_per_second"])


def model(plan: Plan, options: argparse.Namespace, results: Results) -> int:
    """The MQMTAR model: what it says as with reference, then times."""
    config, models = mqmtar(plan, options.run)
    for length in plan.climbed:
        wrong = disagreement(plan, config, models, length)
        if wrong:
            print(f"not timed: MQMTAR at {length}: {wrong}", file=sys.stderr)
            return 1
    kind = "untrained" if options.run is None else options.run.name
    for length in sorted({plan.blockwise, max(plan.climbed[-1], min(65536, plan.lengths[-1]))}):
        inputs, labels = sequence(plan, config, length)
        peers = ("triton", "blockwise") if length <= plan.blockwise else ("triton",)

        def scored(name: str, inputs: Tensor = inputs, labels: Tensor = labels) -> None:
            score_teacher_forcing(models[name], inputs, labels)  # reads results: no CUDA graph
            plan.synchronize()

        functions = {name: lambda name=name: scored(name) for name in peers}
        seconds = time_in_turn(functions, min(options.rounds, 3))
        name = f"MQMTAR model, {kind}, forward, {inputs.shape[1]} tokens (nominal {length})"
        row = [milliseconds(seconds["triton"]), "", "", ""]
        if "blockwise" in seconds:
            ratio = median_ratio(seconds["blockwise"], seconds["triton"])
            row[1:] = ["blockwise", milliseconds(seconds["blockwise"]), f"{ratio:.2f}"]
        results.add(name, row, {"seconds": seconds})
    return 0


def mqmtar(plan: Plan, run: Path | None) -> tuple[Any, dict[str, Any]]:
    """Its config, and the model by backend, with the same weights."""
    models = {}
    for backend in ("triton", "blockwise", "reference"):
        if run is None:
            own = (word for word in plan.words if word.startswith("model."))
            config = load_config(["experiment=paper/mqmtar", *own])
        else:
            config = read_config(run)
        config.attention.backend = backend
        if run is None:
            models[backend] = build_model(config).to(plan.device).eval()  # from the same seed
        else:
            models[backend] = load_model(run, config, plan.device)[0].eval()
    return config, models


def sequence(plan: Plan, config: Any, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of one test sample."""
    batch = eval_batch(config.task, 0, "test", length, 0, 1)
    inputs, labels = (torch.from_numpy(x).to(plan.device) for x in (batch.inputs, batch.labels))
    return inputs, labels


@torch.no_grad()
def disagreement(plan: Plan, config: Any, models: dict[str, Any], length: int) -> str | None:
    """What triton says otherwise than reference, in logits or in verdicts, or None."""
    inputs, labels = sequence(plan, config, length)
    select = scored_positions(labels)
    ours, exact = (models[name](inputs, select=select) for name in ("triton", "reference"))
    off = float((ours - exact).abs().max() / exact.abs().max())
    if not off <= 1e-3:
        return f"logits are off by {off:.1e}"
    ours, exact = (
        score_teacher_forcing(models[name], inputs, labels) for name in ("triton", "reference")
    )
    same = (ours.correct, ours.right) == (exact.correct, exact.right)
    return None if same or exact.close_calls else f"{ours} by triton, {exact} by reference"


SECTIONS: dict[str, Callable[[Plan, argparse.Namespace, Results], int]] = {
    section.__name__: section for section in (sort, short, attention, model, adasplash)
}

if __name__ == "__main__":
    sys.exit(main())
