"""Measure a few steps and validation passes of a run, on as large a part of a batch as time
allows."""

from __future__ import annotations

import itertools
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from lcg.config import Config
from lcg.evaluation import memory
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import build_model
from lcg.training.data import Batches
from lcg.training.devices import compile_mode, device_of, slow_precision
from lcg.training.estimate import FIRST_STEP, Projection, Timing
from lcg.training.learner import Learner, make_fabric
from lcg.training.module import TrainingModule

TIMED = 20  # steps of a whole batch
PASS_TOKENS = 65536  # of one timed validation pass


def measure(config: Config, seconds: float = math.inf) -> Iterator[Projection]:
    """Time steps and validation passes of the real model, data and optimiser.

    Yields the same projection whenever it has new measurements. A batch is measured from one
    sequence on, doubling the number each time, until it is whole or the next part is not expected
    to end in time; half of `seconds` is for steps. Raises ValueError if the config's accelerator is
    missing.
    """
    begin, options = time.perf_counter(), config.trainer
    device = device_of(config)
    mode = compile_mode(options, device)
    if options.threads:
        torch.set_num_threads(options.threads)
    parameters, weight_bytes = _weights(config)
    projection = Projection(
        steps=options.steps,
        validations=math.ceil(options.steps / config.validation.every),
        checkpoints=min(2, math.ceil(options.steps / options.checkpoint_every)),
        step=Timing(math.ceil(config.data.batch_size / options.processes)),
        lengths={
            n: Timing(TestSet(config, "validation", n, config.validation.samples).samples)
            for n in config.validation.lengths
        },
        device=_name(device),
        parameters=parameters,
        weight_bytes=weight_bytes,
        # weights, gradients and AdamW's moments, whatever the batch
        memory_bytes=_peak_memory(device) + 4 * weight_bytes,
        free_bytes=_peak_memory(device) + memory.available_bytes(device),
        notes=list(filter(None, [slow_precision(options, device)])),
        doing="while the model was made",
    )
    if projection.memory_bytes > projection.free_bytes:
        projection.step.obstacle = "weights, gradients and AdamW's moments do not fit in memory"
        for timing in projection.lengths.values():
            timing.obstacle = "as the model does not fit in memory"
        yield projection
        return
    yield projection
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    one_device = replace(options, accelerator=device.type, devices=1, nodes=1)
    learner = Learner(make_fabric(one_device), TrainingModule(config))
    until = [begin + share * seconds for share in ((0.25, 0.5, 1.0) if mode else (0.5, 1.0))]
    yield from _steps(projection, learner, until[0])
    yield from _validations(projection, learner, until[1])
    if mode and projection.step.part == projection.step.whole:
        yield from _compiled_steps(projection, learner, mode, until[2])


def _steps(found: Projection, learner: Learner, end: float) -> Iterator[Projection]:
    """Time steps of growing parts of a batch, then of the whole several times."""
    timing, work, device = found.step, _step(learner), learner.fabric.device
    peaks = {0: _peak_memory(device) + 3 * found.weight_bytes}  # by part; 0: gradients and moments

    def expected(part: int) -> int:
        """Extrapolate the peak linearly from the last two parts."""
        (a, low), (b, high) = list(peaks.items())[-2:]
        return high + (high - low) * (part - b) // (b - a)

    def fits(part: int) -> bool:
        if expected(part) - _peak_memory(device) <= memory.available_bytes(device):
            return True
        timing.obstacle = "more are not expected to fit in memory"
        return False

    def note_peak() -> None:
        peaks[timing.part] = max(_peak_memory(device), peaks[0])
        found.memory_bytes = expected(timing.whole)

    found.doing = FIRST_STEP
    yield found
    for part in _growing(timing, work, timing.whole, end, fits):
        note_peak()
        found.doing = f"in a step of more than {part:,} sequences"
        yield found
    if timing.part == timing.whole and not timing.obstacle:
        found.doing = "in a step"
        for _ in _repeated(timing, work, end):
            note_peak()
            yield found


def _validations(found: Projection, learner: Learner, last: float) -> Iterator[Projection]:
    """Time validation passes of growing parts of the samples, at each length."""
    config, model, device = learner.module.config, learner.module.model, learner.fabric.device
    for i, (length, timing) in enumerate(found.lengths.items()):
        now = time.perf_counter()
        end = now + (last - now) / (len(found.lengths) - i)
        found.doing = f"in a validation pass at length {length}"
        yield found
        whole = max(1, min(timing.whole, PASS_TOKENS // int(config.task.token_length(length))))
        for _ in _growing(timing, partial(_validation, model, config, length), whole, end):
            yield found
    if found.step.part == found.step.whole:
        found.memory_bytes = max(found.memory_bytes, _peak_memory(device))
    yield found


def _compiled_steps(
    found: Projection, learner: Learner, mode: str, end: float
) -> Iterator[Projection]:
    """Time compiled steps of a whole batch, if torch compiles them in time."""
    note = "Steps were timed uncompiled: torch did not compile them in time."
    found.notes.append(note)
    found.doing = "while torch compiled a step"
    yield found
    work = _step(learner, one_width=True)
    learner.module.compile_steps(mode)
    work(found.step.whole)
    found.notes.remove(note)
    found.compiled = learner.module.compiled is not None
    found.doing = "in a compiled step"
    for _ in _repeated(found.step, work, end):
        yield found


def _growing(
    timing: Timing,
    work: Callable[[int], float],
    whole: int,
    end: float,
    fits: Callable[[int], bool] = lambda part: True,
) -> Iterator[int]:
    """Time 1, 1, 2, 4, …, whole; yield after each. The first call takes longer than later ones.

    The first is always done; a later one only if it is expected to end in time and to fit.
    """
    doubled = itertools.takewhile(lambda part: part < whole, (2**n for n in itertools.count()))
    try:
        for part in (1, *doubled, whole):
            if timing.part:
                ends = time.perf_counter() + timing.seconds * part / timing.part
                if ends > end or not fits(part):
                    return
            seconds = work(part)
            timing.part, timing.seconds, timing.times = part, seconds, 1
            yield part
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not memory.is_out_of_memory(error):
            raise
        timing.obstacle = f"out of memory: {' '.join(str(error).split())[:120]}"


def _repeated(timing: Timing, work: Callable[[int], float], end: float) -> Iterator[None]:
    """Replace the time of a whole batch by the mean of several."""
    total = 0.0
    for count in range(1, TIMED + 1):
        if time.perf_counter() + timing.seconds > end:
            return
        total += work(timing.whole)
        timing.seconds, timing.times = total / count, count
        yield


def _step(learner: Learner, one_width: bool = False) -> Callable[[int], float]:
    """Return a step of any number of sequences: batch, forward, backward, clipping, update.

    It returns its seconds, without those of the batch if other processes prepare it.
    """
    config, device, numbers = learner.module.config, learner.fabric.device, itertools.count()
    processes = config.trainer.processes
    tokens = int(config.task.token_length(config.data.max_length))

    def work(rows: int) -> float:
        started, t = time.perf_counter(), next(numbers)
        if t == 0:
            memory.check_fits(config, tokens, device, tokens)
        data = replace(config.data, batch_size=rows * processes)
        batch = Batches(replace(config, data=data), 0, processes, one_width)[t]
        if config.data.workers > 0:
            started = time.perf_counter()
        learner.train_step(batch, t)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return work


def _validation(model, config: Config, length: int, samples: int) -> float:
    """Return the seconds of a validation pass of this many samples; raises MemoryError."""
    started = time.perf_counter()
    (cell,) = evaluate_lengths(model, [TestSet(config, "validation", length, samples)])
    if cell.state == "out_of_memory":
        raise MemoryError(cell.reason)
    return time.perf_counter() - started


def _weights(config: Config) -> tuple[int, int]:
    """Return number and bytes of the weights without allocating them."""
    try:
        with torch.device("meta"):
            model = build_model(config)
    except Exception:  # a class of the user's that computes with its first values
        model = build_model(config)
    parameters = sum(p.numel() for p in model.parameters())
    narrow = config.trainer.precision == "bf16-true"
    return parameters, parameters * (2 if narrow else torch.get_default_dtype().itemsize)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    plural = "s" if threads > 1 else ""
    return f"{device.type}, {threads} thread{plural}" if device.type == "cpu" else device.type


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
