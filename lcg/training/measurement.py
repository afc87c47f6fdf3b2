"""Measures a few steps and validation passes of a run, with as much of a batch as time allows."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from lcg.config import Config
from lcg.evaluation import memory
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import build_model
from lcg.tasks.streams import samples_of
from lcg.training.data import Batches
from lcg.training.devices import compile_mode, device_of, slow_precision
from lcg.training.estimate import Projection, Timing
from lcg.training.learner import Learner, make_fabric
from lcg.training.module import TrainingModule

TIMED = 20  # steps of a whole batch
PASS_TOKENS = 65536  # of one timed validation pass


def measure(config: Config, seconds: float = math.inf) -> Iterator[Projection]:
    """Time steps and validation passes of the real model, data and optimiser.

    Yields one and the same projection whenever there is more in it. A batch is measured from one
    sequence on, twice as many each time, until it is whole or another is not expected to end in
    time: half of `seconds` is for steps. Raises ValueError when the config's accelerator is not
    there.
    """
    measurement = _Measurement(config, seconds)
    yield from measurement.go()


class _Measurement:
    """One run that is measured."""

    def __init__(self, config: Config, seconds: float) -> None:
        options = config.trainer
        self.config, self.begin, self.budget = config, time.perf_counter(), seconds
        self.device = device_of(config)
        self.mode = compile_mode(options, self.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        samples = config.validation.samples
        self.found = Projection(
            steps=options.steps,
            validations=math.ceil(options.steps / config.validation.every),
            checkpoints=min(2, math.ceil(options.steps / options.checkpoint_every)),
            step=Timing(math.ceil(config.data.batch_size / options.processes)),
            lengths={
                length: Timing(samples_of(config.task, "validation", length, samples))
                for length in config.validation.lengths
            },
            device=_name(self.device),
        )
        if note := slow_precision(options, self.device):
            self.found.notes.append(note)

    def go(self) -> Iterator[Projection]:
        found, config = self.found, self.config
        found.parameters, found.weight_bytes = _weights(config)
        held = 4 * found.weight_bytes  # weights, gradients, AdamW's moments
        found.memory_bytes = _peak_memory(self.device) + held
        found.free_bytes = _peak_memory(self.device) + memory.available_bytes(self.device)
        if found.memory_bytes > found.free_bytes:
            found.step.obstacle = "weights, gradients and AdamW's moments do not fit in memory"
            for timing in found.lengths.values():
                timing.obstacle = "as the model does not fit in memory"
            yield found
            return
        yield self._doing("while the model was made")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        one_device = replace(config.trainer, accelerator=self.device.type, devices=1, nodes=1)
        learner = Learner(make_fabric(one_device), TrainingModule(config))
        yield from self._steps(learner)
        yield from self._validations(learner.module.model)
        if self.mode and found.step.part == found.step.whole:
            yield from self._compiled(learner)

    def _until(self, share: float) -> float:
        return self.begin + share * self.budget

    def _doing(self, what: str) -> Projection:
        self.found.doing = what
        return self.found

    def _steps(self, learner: Learner) -> Iterator[Projection]:
        """Time steps of growing parts of a batch, then of the whole several times."""
        timing, end = self.found.step, self._until(0.25 if self.mode else 0.5)
        work = _Steps(self.config, learner)
        peak = _Peak(self.found, self.device, held=3 * self.found.weight_bytes)
        self.found.stepping = True
        yield self._doing("in a step of one sequence")
        try:
            tokens = int(self.config.task.token_length(self.config.data.max_length))
            memory.check_fits(self.config, tokens, self.device, tokens)
            for part, seconds in _growing(work, timing.whole, end, peak.fits):
                timing.part, timing.seconds, timing.times = part, seconds, 1
                peak.note(part)
                self.found.stepping = False
                yield self._doing(f"in a step of more than {part:,} sequences")
        except (MemoryError, RuntimeError) as error:
            timing.obstacle = _memory_obstacle(error)
        self.found.stepping = False
        if peak.is_full:
            timing.obstacle = "more are not expected to fit in memory"
        if timing.part == timing.whole and not timing.obstacle:
            for _ in self._repeat(work, end):
                peak.note(timing.whole)
                yield self._doing("in a step")

    def _repeat(self, work: Callable[[int], float], end: float) -> Iterator[None]:
        """Replace the time of a whole batch by the mean of several."""
        timing, total = self.found.step, 0.0
        for count in range(1, TIMED + 1):
            if time.perf_counter() + timing.seconds > end:
                return
            total += work(timing.whole)
            timing.seconds, timing.times = total / count, count
            yield

    def _validations(self, model) -> Iterator[Projection]:
        """Time validation passes of growing parts of the samples, at each length."""
        config, last = self.config, self._until(0.5 if self.mode else 1.0)
        for i, (length, timing) in enumerate(self.found.lengths.items()):
            now = time.perf_counter()
            end = now + (last - now) / (len(self.found.lengths) - i)
            yield self._doing(f"in a validation pass at length {length}")
            tokens = int(config.task.token_length(length))
            whole = max(1, min(timing.whole, PASS_TOKENS // tokens))
            try:
                for part, seconds in _growing(_validation(model, config, length), whole, end):
                    timing.part, timing.seconds, timing.times = part, seconds, 1
                    yield self.found
            except (MemoryError, RuntimeError) as error:
                timing.obstacle = _memory_obstacle(error)
        if self.found.step.part == self.found.step.whole:
            self.found.memory_bytes = max(self.found.memory_bytes, _peak_memory(self.device))
        yield self.found

    def _compiled(self, learner: Learner) -> Iterator[Projection]:
        """Time compiled steps of a whole batch, if torch compiles them in time."""
        found, plain = self.found, self.found.step
        found.step = Timing(plain.whole, plain.whole, plain.seconds, plain.times)
        note = "Steps were timed uncompiled: torch did not compile them in time."
        found.notes.append(note)
        yield self._doing("while torch compiled a step")
        work = _Steps(self.config, learner, one_width=True)
        learner.module.compile_steps(self.mode)
        work(plain.whole)
        found.notes.remove(note)
        found.compiled = learner.module.is_compiled
        for _ in self._repeat(work, self._until(1.0)):
            yield self._doing("in a compiled step")


def _growing(
    work: Callable[[int], float],
    whole: int,
    end: float,
    fits: Callable[[int], bool] = lambda part: True,
) -> Iterator[tuple[int, float]]:
    """Yield (part, seconds of work(part)) for growing parts of a whole.

    The first is always done; a later one only if it is expected to end in time and to fit.
    """
    done, seconds = 0, 0.0
    for part in _parts(whole):
        if done and (time.perf_counter() + seconds * part / done > end or not fits(part)):
            return
        done, seconds = part, work(part)
        yield part, seconds


def _parts(whole: int) -> Iterator[int]:
    """1, 1, 2, 4, …, whole. One comes twice, since what is done first takes longer."""
    yield 1
    part = 1
    while part < whole:
        yield part
        part *= 2
    yield whole


class _Steps:
    """Training steps, of batches of any size."""

    def __init__(self, config: Config, learner: Learner, one_width: bool = False) -> None:
        self.config, self.learner, self.one_width = config, learner, one_width
        self.t = 0

    def __call__(self, rows: int) -> float:
        """Seconds of one step with so many sequences on this device: batch, forward, backward,
        clipping, update. The batch is not counted where other processes make it meanwhile.
        """
        started = time.perf_counter()
        processes = self.config.trainer.processes
        data = replace(self.config.data, batch_size=rows * processes)
        batch = Batches(replace(self.config, data=data), 0, processes, self.one_width)[self.t]
        if self.config.data.workers > 0:
            started = time.perf_counter()
        self.learner.train_step(batch, self.t)
        if self.learner.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.learner.fabric.device)
        self.t += 1
        return time.perf_counter() - started


class _Peak:
    """The memory that growing parts of a batch took at their peak, and what larger ones may take.

    held: bytes that the first step takes whatever its size.
    """

    def __init__(self, found: Projection, device: torch.device, held: int) -> None:
        self.found, self.device, self.is_full = found, device, False
        self.taken = {0: _peak_memory(device) + held}

    def note(self, part: int) -> None:
        """Take note of the peak after a step of a part."""
        self.taken[part] = max(_peak_memory(self.device), self.taken[0])
        self.found.memory_bytes = self._of(self.found.step.whole)

    def fits(self, part: int) -> bool:
        """Return whether a step of a part is expected to find the memory it takes."""
        more = self._of(part) - _peak_memory(self.device)
        self.is_full = more > memory.available_bytes(self.device)
        return not self.is_full

    def _of(self, part: int) -> int:
        """The line through the last two parts."""
        (a, low), (b, high) = list(self.taken.items())[-2:]
        return high + (high - low) * (part - b) // (b - a)


def _validation(model, config: Config, length: int) -> Callable[[int], float]:
    """A validation pass of any number of samples; returns its seconds, raises MemoryError."""

    def work(samples: int) -> float:
        started = time.perf_counter()
        (cell,) = evaluate_lengths(model, [TestSet(config, "validation", length, samples)])
        if cell.state == "out_of_memory":
            raise MemoryError(cell.reason)
        return time.perf_counter() - started

    return work


def _memory_obstacle(error: Exception) -> str:
    """The reason for which a part could not be measured; other errors are raised again."""
    if not isinstance(error, MemoryError) and not memory.is_out_of_memory(error):
        raise error
    return f"out of memory: {' '.join(str(error).split())[:120]}"


def _weights(config: Config) -> tuple[int, int]:
    """Count the weights and their bytes without taking the memory for them."""
    try:
        with torch.device("meta"):
            model = build_model(config)
    except Exception:  # a class of the user's that computes with its first values
        model = build_model(config)
    parameters = sum(p.numel() for p in model.parameters())
    narrow = config.trainer.precision == "bf16-true"
    width = 2 if narrow else torch.get_default_dtype().itemsize
    return parameters, width * parameters


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
