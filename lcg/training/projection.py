"""What a run will take, projected from a few of its own steps; nothing is written."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lcg.config import Config, run_directory, to_yaml
from lcg.evaluation.ladder import climb
from lcg.speaking import say
from lcg.training.data import Batches
from lcg.training.machine import device_of
from lcg.training.module import TrainingModule, compile_mode
from lcg.units import duration, size

WARM_UP, TIMED = 3, 20  # steps
PATIENCE = 60.0  # seconds after which fewer steps have to do
BOOKKEEPING = 0.0015  # seconds a step that the trainer adds to the plain loop here
PASS_TOKENS = 65536  # of one timed validation pass


@dataclass
class Projection:
    """What was measured, and what follows from it for the whole run."""

    device: str
    parameters: int
    steps: int
    timed_steps: int
    step_seconds: float
    validations: int
    validation_seconds: float
    """Of one validation."""
    too_long: list[int]
    """Validation lengths that do not fit in memory."""
    memory_bytes: int
    checkpoint_bytes: int
    """Weights and the optimiser's moments: last.ckpt, and previous.ckpt beside it."""
    weight_bytes: int
    """best.ckpt."""
    checkpoints: int
    """How many of last and previous there will be: 2, or 1 in a run that saves only once."""

    @property
    def training_seconds(self) -> float:
        """All steps."""
        return self.steps * self.step_seconds

    @property
    def disk_bytes(self) -> int:
        """What checkpoints take when training is done."""
        return self.checkpoints * self.checkpoint_bytes + self.weight_bytes


def project(config: Config) -> str:
    """The resolved config and what a run of it takes, as text."""
    return to_yaml(config) + "\n" + as_text(config, measure(config))


def as_text(config: Config, found: Projection) -> str:
    """The projection in words, with what it rests on."""
    validation = found.validations * found.validation_seconds
    total = found.training_seconds + validation
    lengths = ", ".join(map(str, config.validation.lengths))
    ms = f"{1000 * found.step_seconds:.3g} ms"
    where = found.device
    if where == "cpu":
        threads = torch.get_num_threads()
        where += f", {threads} thread{'s' if threads > 1 else ''}"
    lines = [
        f"run         {run_directory(config)}",
        f"parameters  {found.parameters:,}",
        f"training    {duration(found.training_seconds)}: {found.steps:,} steps of {ms}",
        f"validation  {duration(validation)}: {found.validations} of "
        f"{duration(found.validation_seconds)} at lengths {lengths}",
        f"together    {duration(total)}",
        f"memory      {size(found.memory_bytes)} at its peak",
        f"disk        {size(found.disk_bytes)}: last, previous and best checkpoint; "
        f"{size(found.checkpoint_bytes)} more while one is written",
        "",
        f"Projected from {found.timed_steps} steps and one pass at each validation length on "
        f"{where}.",
        "Not in it: starting up, and the test ladder after training.",
    ]
    if config.trainer.processes > 1:
        lines.append(f"Timed on one of {config.trainer.processes} devices, without communication.")
    if found.too_long:
        lines.append(f"Validation at {', '.join(map(str, found.too_long))} does not fit in memory.")
    return "\n".join(lines)


def measure(config: Config) -> Projection:
    """Time some training steps and one validation pass of the real model, data and optimiser.

    Raises ValueError when the config's accelerator is not there.
    """
    options = config.trainer
    device = device_of(config)
    if options.threads:
        torch.set_num_threads(options.threads)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    module = TrainingModule(config).to(device)
    if options.precision == "bf16-true":
        module.to(torch.bfloat16)
    if mode := compile_mode(options, device):
        module.compile_steps(mode)
    [optimizer], _ = module.configure_optimizers()
    seconds = _time_steps(config, module, optimizer, device)
    validation_seconds, too_long = _time_validation(config, module.model)
    weights = list(module.model.parameters())
    moments = [t for state in optimizer.state.values() for t in state.values()]
    return Projection(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        parameters=sum(p.numel() for p in weights),
        steps=options.steps,
        timed_steps=len(seconds),
        step_seconds=sum(seconds) / len(seconds) + BOOKKEEPING,
        validations=math.ceil(options.steps / config.validation.every),
        validation_seconds=validation_seconds,
        too_long=too_long,
        memory_bytes=_peak_memory(device),
        checkpoint_bytes=_bytes(weights) + _bytes(moments),
        weight_bytes=_bytes(weights),
        checkpoints=min(2, math.ceil(options.steps / options.checkpoint_every)),
    )


def _time_steps(config: Config, module, optimizer, device: torch.device) -> list[float]:
    """Seconds of each timed step: batch, forward, backward, clipping, update."""
    say(f"timing {TIMED} steps on {device.type} …")
    step = _training_step(config, module, optimizer, device)
    one_width = compile_mode(config.trainer, device) is not None
    batches = Batches(config, 0, config.trainer.processes, one_width)
    ahead = config.data.workers > 0  # then others prepare the batches meanwhile
    seconds: list[float] = []
    begin = time.perf_counter()
    for t in range(WARM_UP + TIMED):
        batch = batches[t] if ahead else None
        started = time.perf_counter()
        step(batch or batches[t])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if t >= WARM_UP:
            seconds.append(now - started)
        if len(seconds) >= 3 and now - begin > PATIENCE:
            break
    return seconds


def _training_step(config, module, optimizer, device) -> Callable[[dict[str, Any]], None]:
    precision = config.trainer.precision
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")

    def autocast():
        if not precision.endswith("mixed"):
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
        return torch.autocast(device.type, dtype)

    def step(batch: dict[str, Any]) -> None:
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with autocast():
            total = module.summed_loss(batch)
        optimizer.zero_grad()
        scaler.scale(total / batch["scored"]).backward()
        scaler.unscale_(optimizer)
        module.configure_gradient_clipping(optimizer)
        scaler.step(optimizer)
        scaler.update()

    return step


def _time_validation(config: Config, model) -> tuple[float, list[int]]:
    """Seconds of one validation from one pass at each length, and the lengths that do not fit."""
    asked = config.validation
    seconds, too_long = 0.0, []
    for length in asked.lengths:
        say(f"timing a validation pass at length {length} …")
        tokens = int(config.task.token_length(length))
        samples = max(1, min(asked.samples, PASS_TOKENS // tokens))
        started = time.perf_counter()
        (cell,) = climb(
            model, config, [length], samples, split="validation", seed=config.evaluation.seed
        )
        if cell.state == "out_of_memory":
            too_long.append(length)
        else:
            seconds += (time.perf_counter() - started) * asked.samples / samples
    return seconds, too_long


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _bytes(tensors: list) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
