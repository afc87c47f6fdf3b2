"""Estimate the time, memory and disk space of a run from measurements."""

from __future__ import annotations

from dataclasses import dataclass, field

from lcg.config import Config, run_directory
from lcg.text import duration, size

BOOKKEEPING = 0.0015  # seconds a step that the loop adds to the step itself
FIRST_STEP = "in a step of one sequence"


@dataclass
class Timing:
    """Seconds for `part` of the `whole` sequences of a batch or a validation set.

    A part of 0 was not measured; `obstacle` is the reason, or the reason why the part is not
    larger.
    """

    whole: int
    part: int = 0
    seconds: float = 0.0
    times: int = 0
    obstacle: str = ""

    @property
    def scaled(self) -> float:
        """Seconds of all sequences, in proportion."""
        return self.seconds * self.whole / self.part if self.part else 0.0

    def __str__(self) -> str:
        if not self.part:
            return f"not measured, {self.obstacle or 'out of time'}"
        if self.part == self.whole:
            count = "once" if self.times == 1 else f"{self.times} times"
            return f"all {self.whole:,} sequences, {count}"
        obstacle = f"; {self.obstacle}" if self.obstacle else ""
        return f"{self.part:,} of {self.whole:,} sequences, scaled in proportion{obstacle}"


@dataclass
class Projection:
    """Measurements of a run so far, and the estimates for the whole run.

    checkpoints: 2, last and previous, or 1 in a run that saves only once. step: for the sequences
    of a batch on one device. lengths: one validation at each. weight_bytes: of the weights only.
    memory_bytes: peak, of free_bytes available. startup: seconds of imports. doing: what is being
    measured. waited: seconds of a first step that did not finish in time.
    """

    steps: int
    validations: int
    checkpoints: int
    step: Timing
    lengths: dict[int, Timing]
    device: str = ""
    compiled: bool = False
    parameters: int = 0
    weight_bytes: int = 0
    memory_bytes: int = 0
    free_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    startup: float = 0.0
    doing: str = ""
    waited: float = 0.0

    @property
    def is_bound(self) -> bool:
        """True if the estimates are lower bounds, since something could not be measured."""
        return not all(timing.part for timing in (self.step, *self.lengths.values()))

    @property
    def step_seconds(self) -> float:
        """Seconds of one step; a lower bound if not even one sequence was measured."""
        return (self.step.scaled or self.waited) + BOOKKEEPING

    @property
    def validation_seconds(self) -> float:
        """Seconds of one validation."""
        return sum(timing.scaled for timing in self.lengths.values())

    @property
    def seconds(self) -> float:
        """Seconds of all steps and validations."""
        return self.steps * self.step_seconds + self.validations * self.validation_seconds

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of weights and AdamW's two moments: last.ckpt, and the same for previous.ckpt."""
        return 3 * self.weight_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes of all checkpoints after training; best.ckpt has the weights only."""
        return self.checkpoints * self.checkpoint_bytes + self.weight_bytes


def as_text(config: Config, found: Projection) -> str:
    """Return the estimate as text, with the measurements behind it."""
    step, lengths = found.step, ", ".join(map(str, config.validation.lengths))
    timed = [timing.part > 0 for timing in found.lengths.values()]
    is_known = step.part > 0 or found.waited > 0
    training = _total(found.steps, " steps", found.step_seconds, is_known, step.part == 0)
    each = found.validation_seconds
    validation = _total(found.validations, "", each, any(timed), not all(timed))
    together = _at_least(found.seconds, found.is_bound) if is_known else "not known"
    memory = f"{'' if step.part else 'more than '}{size(found.memory_bytes)} at its peak"
    if found.memory_bytes > found.free_bytes:
        memory += f", but only {size(found.free_bytes)} are free here"
    lines = [
        f"run         {run_directory(config)}",
        f"parameters  {found.parameters:,}",
        f"training    {training}",
        f"validation  {validation} at lengths {lengths}",
        f"together    {together}",
        f"memory      {memory}",
        f"disk        {size(found.disk_bytes)}: last, previous and best checkpoint; "
        f"{size(found.checkpoint_bytes)} more while one is written",
        "",
        f"Measured on {found.device or 'nothing'}:",
        f"  a step{' (compiled)' if found.compiled else ''}: {step}",
        *(f"  validation at length {length}: {timing}" for length, timing in found.lengths.items()),
        *found.notes,
        "Not included: start-up, and the evaluation after training.",
    ]
    if config.trainer.processes > 1:
        lines.append(f"Timed on one of {config.trainer.processes} devices, without communication.")
    return "\n".join(lines)


def _total(count: int, noun: str, each: float, is_known: bool, is_bound: bool) -> str:
    if not is_known:
        return f"not known: {count:,}{noun}"
    return f"{_at_least(count * each, is_bound)}: {count:,}{noun} of {_at_least(each, is_bound)}"


def _at_least(seconds: float, is_bound: bool) -> str:
    text = duration(seconds) if seconds >= 1 else f"{1000 * seconds:.3g} ms"
    return f"more than {text}" if is_bound else text
