"""Check that a machine has what a config asks for: devices, nodes, memory. Imports torch late."""

from __future__ import annotations

import importlib.util
import os
import platform
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg.config import Config
from lcg.config.schema import Trainer, shown
from lcg.config.sizes import largest_option, parameter_count
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


def check_machine(trainer: Trainer) -> None:
    """Raise ValueError for a device or other nodes that cannot be there. Does not import torch."""
    check_nodes(trainer.nodes)
    possible = {"cpu": True, "cuda": _built_for_cuda(), "mps": platform.system() == "Darwin"}
    possible |= {"gpu": possible["cuda"], "auto": True}
    if not possible[trainer.accelerator]:
        raise ValueError(_nothing_there(trainer.accelerator))
    if trainer.precision == "16-mixed" and not (possible["cuda"] or possible["mps"]):
        raise ValueError(NEEDS_GPU)


def memory_problem(config: Config) -> str | None:
    """Say which option makes a run too large for this machine's memory; None where none does.

    Counted is what cannot be less: weights, gradients and the optimiser's moments, a batch and what
    every layer keeps of it for the backward pass, and processes. On a GPU only what passes through
    the host's memory. Does not import torch.
    """
    model, data, trainer, asked = config.model, config.data, config.trainer, config.evaluation
    on_host = trainer.accelerator == "cpu" or (
        trainer.accelerator == "auto" and not _built_for_cuda() and platform.system() != "Darwin"
    )
    width = 2 if trainer.precision == "bf16-true" else 4  # bytes
    copies = 4 if on_host else 1  # weights, gradients, two moments
    weights = copies * width * parameter_count(model, config.task.vocabulary)
    weights += LAYER_BYTES * (model.layers + model.source_layers * model.separate_source)
    kept = 2 * 2 * model.d_model * min(model.layers, model.source_layers) if on_host else 0
    tokens = int(config.task.token_length(data.max_length))
    needs = {
        largest_option(config): weights,
        _larger_of(data, tokens): data.batch_size * tokens * (TOKEN_BYTES + kept),
        f"data.workers={shown(data.workers)}": PROCESS_BYTES * trainer.devices * data.workers,
        f"trainer.devices={trainer.devices}": PROCESS_BYTES * (trainer.devices - 1),
    }
    problem = too_much("training", needs)
    if problem is None and asked.after_training and asked.batch_size is not None:
        problem = evaluation_problem(config)
    return problem


def ladder_notes(config: Config) -> list[str]:
    """Name the lengths of which no sequence fits in memory, and samples that take days; no error.

    Such a length is recorded as out of memory, and the others are evaluated. Does not import torch.
    """
    notes, have = [], host_memory()
    for name in ("validation", "evaluation"):
        asked = getattr(config, name)
        if name == "evaluation" and not asked.after_training:
            continue
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


def evaluation_problem(config: Config) -> str | None:
    """Say that a batch size that was asked for does not fit; None where it may."""
    asked = config.evaluation
    if asked.batch_size is None:
        return None
    rows = min(asked.batch_size, asked.samples)
    tokens = rows * int(config.task.token_length(min(asked.lengths)))
    option = f"evaluation.batch_size={shown(asked.batch_size)}"
    return too_much("evaluation", {option: TOKEN_BYTES * tokens})


def _larger_of(data: Any, tokens: int) -> str:
    name = "batch_size" if data.batch_size > tokens else "max_length"
    return f"data.{name}={shown(getattr(data, name))}"


def too_much(what: str, needs: dict[str, int]) -> str | None:
    """Name the option that needs most, where all together need more memory than there is.

    needs: option=value -> bytes.
    """
    need, have = sum(needs.values()), host_memory()
    if need <= have:
        return None
    option = max(needs, key=needs.get)
    return (
        f"{option} is too large for this machine: {what} needs at least {size(need)} of memory, "
        f"and {size(have)} are available"
    )


def check_nodes(nodes: int) -> None:
    """Raise ValueError when this process cannot find the other nodes of its run."""
    missing = [name for name in NODE_VARIABLES if not os.environ.get(name)]
    if nodes > 1 and missing:
        raise ValueError(
            f"trainer.nodes={nodes} needs {', '.join(missing)} in the environment of each node: "
            "which of them it is, from 0, and where node 0 listens"
        )


def device_of(config: Config) -> torch.device:
    """The device of `trainer.accelerator`.

    Raises ValueError when there is none, or one that cannot do what the config asks for.
    """
    import torch

    trainer = config.trainer
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there |= {"gpu": there["cuda"], "mps": torch.backends.mps.is_available()}
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[accelerator]:
        raise ValueError(_nothing_there(accelerator))
    if trainer.precision == "16-mixed" and accelerator == "cpu":
        raise ValueError(NEEDS_GPU)
    device = torch.device({"gpu": "cuda"}.get(accelerator, accelerator))
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if config.attention.backend == "triton" and device.type != "cuda" and not interpreted:
        raise ValueError(
            "attention.backend=triton needs a CUDA device, and there is none; use backend=auto"
        )
    return device


def compile_mode(options: Trainer, device: torch.device) -> str | None:
    """The mode in which torch compiles the training step on a device; None: it does not."""
    if options.compile == "auto":
        return "reduce-overhead" if device.type == "cuda" and options.processes == 1 else None
    return None if options.compile == "none" else options.compile


def slow_precision(trainer: Trainer, device: torch.device) -> str | None:
    """Return a line about a precision that the device computes in without instructions for it."""
    import torch

    if device.type != "cpu" or not trainer.precision.startswith("bf16"):
        return None
    if not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return (
        f"trainer.precision={trainer.precision} is slow on this CPU, which has no instructions "
        "for bf16; 32-true is faster"
    )


NEEDS_GPU = "trainer.precision=16-mixed needs a GPU; a CPU has bf16-mixed"


def _nothing_there(accelerator: str) -> str:
    return f"trainer.accelerator={accelerator}: there is none on this machine"


def _built_for_cuda() -> bool:
    """Return whether the torch that would be imported knows CUDA devices, AMD's among them."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        facts = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    except OSError:
        return True
    return bool(facts.get("cuda") or facts.get("hip"))
