"""Check that a machine has the devices, nodes and memory that a config needs. Imports torch
late."""

from __future__ import annotations

import importlib.util
import os
import platform
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from lcg.attention.backends import unrunnable
from lcg.config import Config
from lcg.config.compatibility import largest_option, parameter_count
from lcg.config.schema import Trainer, shown
from lcg.system import host_memory
from lcg.text import duration, size

if TYPE_CHECKING:
    import torch

FAST = 10**6  # tokens evaluated in a second by a small model on a good GPU
MANY_TOKENS = FAST * 86_400
TOKEN_BYTES = 24  # of a batch while it is made: inputs, labels and what they are made of
LAYER_BYTES = 16_384  # of a layer's modules, however small its matrices are
PROCESS_BYTES = 150 * 2**20  # that a process with torch does not share with others
NODE_VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
NOTHING_THERE = "trainer.accelerator={}: this machine has none"
NEEDS_GPU = "trainer.precision=16-mixed needs a GPU; a CPU has bf16-mixed"


def check_machine(trainer: Trainer) -> None:
    """Raise ValueError for a missing device or missing nodes. Does not import torch."""
    check_nodes(trainer.nodes)
    possible = _possible_devices()
    if trainer.accelerator != "auto" and trainer.accelerator not in possible:
        raise ValueError(NOTHING_THERE.format(trainer.accelerator))
    if trainer.precision == "16-mixed" and possible == {"cpu"}:
        raise ValueError(NEEDS_GPU)


def check_nodes(nodes: int) -> None:
    """Raise ValueError when this process cannot find the other nodes of its run."""
    missing = [name for name in NODE_VARIABLES if not os.environ.get(name)]
    if nodes > 1 and missing:
        raise ValueError(
            f"trainer.nodes={nodes} needs {', '.join(missing)} in the environment of each node: "
            "the node's number, from 0, and the address and port of node 0"
        )


def _possible_devices() -> set[str]:
    cuda = {"cuda", "gpu"} if _built_for_cuda() else set()
    return {"cpu"} | cuda | ({"mps"} if platform.system() == "Darwin" else set())


def _built_for_cuda() -> bool:
    """Return whether the installed torch supports CUDA devices, AMD's included."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        facts = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    except OSError:
        return True
    return bool(facts.get("cuda") or facts.get("hip"))


def memory_problem(config: Config) -> str | None:
    """Return which option makes a run too large for this machine's memory; None if none does.

    Counted are lower bounds: weights, gradients and the optimiser's moments, a batch and the
    activations that every layer keeps for the backward pass, and processes. On a GPU, only what
    passes through the host's memory. Does not import torch.
    """
    model, data, trainer = config.model, config.data, config.trainer
    on_host = trainer.accelerator == "cpu" or (
        trainer.accelerator == "auto" and _possible_devices() == {"cpu"}
    )
    width = 2 if trainer.precision == "bf16-true" else 4  # bytes
    copies = 4 if on_host else 1  # weights, gradients, two moments
    weights = copies * width * parameter_count(model, config.task.vocabulary)
    weights += LAYER_BYTES * (model.layers + model.source_layers * model.separate_source)
    kept = 2 * 2 * model.d_model * min(model.layers, model.source_layers) if on_host else 0
    tokens = int(config.task.token_length(data.max_length))
    larger = "batch_size" if data.batch_size > tokens else "max_length"
    batch = data.batch_size * tokens * (TOKEN_BYTES + kept)
    needs = {
        largest_option(config): weights,
        f"data.{larger}={shown(getattr(data, larger))}": batch,
        f"data.workers={shown(data.workers)}": PROCESS_BYTES * trainer.devices * data.workers,
        f"trainer.devices={trainer.devices}": PROCESS_BYTES * (trainer.devices - 1),
    }
    problem = too_much("training", needs)
    if problem is None and config.evaluation.after_training:
        problem = evaluation_problem(config)
    return problem


def evaluation_problem(config: Config) -> str | None:
    """Return a message if the requested batch size does not fit; None if it may."""
    asked = config.evaluation
    if asked.batch_size is None:
        return None
    rows = min(asked.batch_size, asked.samples)
    tokens = rows * int(config.task.token_length(min(asked.lengths)))
    option = f"evaluation.batch_size={shown(asked.batch_size)}"
    return too_much("evaluation", {option: TOKEN_BYTES * tokens})


def too_much(work: str, needs: dict[str, int]) -> str | None:
    """Return the option that needs most, if all together need more memory than available.

    needs: option=value -> bytes.
    """
    need, have = sum(needs.values()), host_memory()
    if need <= have:
        return None
    return (
        f"{max(needs, key=needs.get)} is too large for this machine: {work} needs at least "
        f"{size(need)} of memory, and {size(have)} are available"
    )


def ladder_notes(config: Config) -> list[str]:
    """Return notes on lengths of which no sequence fits in memory, and on samples that take days.

    Such a length is recorded as out of memory, and the others are evaluated. Does not import torch.
    """
    notes, have = [], host_memory()
    for name in ("validation", *(["evaluation"] if config.evaluation.after_training else [])):
        asked = getattr(config, name)
        longest = max(asked.lengths)
        tokens_of = {n: int(config.task.token_length(n)) for n in asked.lengths}
        need = TOKEN_BYTES * tokens_of[longest]
        if need > have:
            notes.append(
                f"{name}.lengths: a sequence of length {shown(longest)} needs at least "
                f"{size(need)} of memory, and {size(have)} are available; it will be out of memory"
            )
        tokens = asked.samples * sum(n for n in tokens_of.values() if TOKEN_BYTES * n <= have)
        if tokens > MANY_TOKENS and config.task.distinct_samples("test", longest) is None:
            notes.append(
                f"{name}.samples={shown(asked.samples)}: {shown(tokens)} tokens are evaluated each "
                f"time, which takes {duration(tokens / FAST)} at {shown(FAST)} tokens/s"
            )
    return notes


def device_of(config: Config) -> torch.device:
    """Return the device of `trainer.accelerator`.

    Raises ValueError when there is none, or it does not support the config.
    """
    import torch

    trainer = config.trainer
    available = ["cuda"] if torch.cuda.is_available() else []
    available += ["mps"] if torch.backends.mps.is_available() else []
    available += ["cpu"]
    name = {"gpu": "cuda", "auto": available[0]}.get(trainer.accelerator, trainer.accelerator)
    if name not in available:
        raise ValueError(NOTHING_THERE.format(trainer.accelerator))
    if trainer.precision == "16-mixed" and name == "cpu":
        raise ValueError(NEEDS_GPU)
    device = torch.device(name)
    if problem := unrunnable(config.attention.backend, device):
        raise ValueError(f"attention.backend=triton {problem}; use backend=auto")
    return device


def compile_mode(options: Trainer, device: torch.device) -> str | None:
    """Return the mode in which torch compiles the training step on a device; None: not at all."""
    if options.compile == "auto":
        return "reduce-overhead" if device.type == "cuda" and options.processes == 1 else None
    return None if options.compile == "none" else options.compile


def slow_precision(trainer: Trainer, device: torch.device) -> str | None:
    """Return a line about a precision for which the device has no instructions."""
    import torch

    if device.type != "cpu" or not trainer.precision.startswith("bf16"):
        return None
    if not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return (
        f"trainer.precision={trainer.precision} is slow on this CPU, which has no instructions "
        "for bf16; 32-true is faster"
    )
