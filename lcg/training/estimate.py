"""Estimate the time, memory and disk of a run from what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lcg.config import Config, run_directory
from lcg.text import duration, size

BOOKKEEPING = 0.0015  # seconds a step that the loop adds to the step itself


@dataclass
class Timing:
    """Seconds that `part` of a batch's or a validation set's `whole` sequences took.

    A part of 0 was not measured; `obstacle` says why, or why the part is not larger.
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
            return f"nothing, {self.obstacle or 'the time was up'}"
        obstacle = f"; {self.obstacle}" if self.obstacle else ""
        if self.part == self.whole:
            return f"all {self.whole:,} sequences, {_times(self.times)}"
        return f"{self.part:,} of {self.whole:,} sequences, scaled in proportion{obstacle}"


@dataclass
class Projection:
    """Measurements of a run so far, and the estimates for the whole run that follow."""

    steps: int
    validations: int
    checkpoints: int
    """The number of last and previous together: 2, or 1 in a run that saves only once."""
    step: Timing
    """One step on the sequences that one device has of a batch."""
    lengths: dict[int, Timing]
    """One validation at each length."""
    device: str = ""
    compiled: bool = False
    parameters: int = 0
    weight_bytes: int = 0
    """best.ckpt."""
    memory_bytes: int = 0
    free_bytes: int = 0
    """The memory that is left to the run, beside what memory_bytes counts already."""
    notes: list[str] = field(default_factory=list)
    startup: float = 0.0
    """Seconds that imports take."""
    doing: str = ""
    """Names the thing that is being measured."""
    stepping: bool = False
    """True while the first step is measured."""
    waited: float = 0.0
    """Seconds that the first step had taken when the time was up."""

    @property
    def is_bound(self) -> bool:
        """True where the estimates are too low, since something could not be measured."""
        return not all(timing.part for timing in (self.step, *self.lengths.values()))

    @property
    def step_seconds(self) -> float:
        """One step; less than that where not one sequence was done."""
        return (self.step.scaled or self.waited) + BOOKKEEPING

    @property
    def training_seconds(self) -> float:
        """All steps."""
        return self.steps * self.step_seconds

    @property
    def validation_seconds(self) -> float:
        """One validation."""
        return sum(timing.scaled for timing in self.lengths.values())

    @property
    def seconds(self) -> float:
        """All steps and validations."""
        return self.training_seconds + self.validations * self.validation_seconds

    @property
    def checkpoint_bytes(self) -> int:
        """Weights and AdamW's two moments: last.ckpt, and previous.ckpt beside it."""
        return 3 * self.weight_bytes

    @property
    def disk_bytes(self) -> int:
        """All checkpoints, when training is done."""
        return self.checkpoints * self.checkpoint_bytes + self.weight_bytes


def as_text(config: Config, found: Projection) -> str:
    """The estimate in words, with what it rests on."""
    lengths = ", ".join(map(str, config.validation.lengths))
    more = "" if found.step.part else "more than "
    memory = f"{more}{size(found.memory_bytes)} at its peak"
    if found.memory_bytes > found.free_bytes:
        memory += f", of {size(found.free_bytes)} that are free here"
    lines = [
        f"run         {run_directory(config)}",
        f"parameters  {found.parameters:,}",
        f"training    {_training(found)}",
        f"validation  {_validation(found)} at lengths {lengths}",
        f"together    {_together(found)}",
        f"memory      {memory}",
        f"disk        {size(found.disk_bytes)}: last, previous and best checkpoint; "
        f"{size(found.checkpoint_bytes)} more while one is written",
        "",
        f"Measured on {found.device or 'nothing'}:",
        f"  a step{' (compiled)' if found.compiled else ''}: {found.step}",
        *(f"  validation at length {length}: {timing}" for length, timing in found.lengths.items()),
        *found.notes,
        "Not in it: starting up, and the test ladder after training.",
    ]
    if config.trainer.processes > 1:
        lines.append(f"Timed on one of {config.trainer.processes} devices, without communication.")
    return "\n".join(lines)


def _training(found: Projection) -> str:
    if not found.step.part and not found.waited:
        return f"not known: {found.steps:,} steps"
    bound = "" if found.step.part else "more than "
    step = f"{found.steps:,} steps of {bound}{_brief(found.step_seconds)}"
    return f"{bound}{duration(found.training_seconds)}: {step}"


def _validation(found: Projection) -> str:
    timed = [bool(timing.part) for timing in found.lengths.values()]
    if not any(timed):
        return f"not known: {found.validations}"
    bound = "" if all(timed) else "more than "
    each = f"{found.validations} of {bound}{duration(found.validation_seconds)}"
    return f"{bound}{duration(found.validations * found.validation_seconds)}: {each}"


def _together(found: Projection) -> str:
    if not found.step.part and not found.waited:
        return "not known"
    return f"{'more than ' if found.is_bound else ''}{duration(found.seconds)}"


def _brief(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
