"""The run record: what `results.json` in a run directory holds, read and written safely.

A record is immutable; new evaluations are merged into a copy which is then saved:

    record = RunRecord.load("runs/copy-softmax-nape-s0-1a2b3c4d")
    record.merge(cells).save("runs/copy-softmax-nape-s0-1a2b3c4d")
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lcg.results.atomic import write_atomic

SCHEMA = 1
FILE_NAME = "results.json"
STATES = ("value", "skipped", "out_of_memory", "did_not_train", "not_finite")
STATUSES = ("running", "finished", "interrupted", "not_finite")
REQUIRED_LABELS = ("task", "attention", "position")
REQUIRED_SETTINGS = ("seed", "lr", "train_lengths")


class RecordError(ValueError):
    """A record that cannot be read, or that contradicts itself: one line, naming the file."""


@dataclass(frozen=True)
class Cell:
    """One rung of the length ladder: `correct` exact matches among `samples` sequences.

    length: the task's nominal length; tokens: the whole sequence's true length in tokens.
    seed: the evaluation seed. step: the checkpoint's training step, None if there was none.
    token_accuracy, prefix: fractions in [0, 1] (prefix: longest correct prefix / target length).
    close_calls: scored positions whose two best logits nearly tie. seconds: wall time.
    state: `value`, or why there is none; every other state carries a `reason`.
    Raises ValueError for an unknown state, counts that do not fit, or a missing reason.
    """

    length: int
    samples: int
    seed: int
    decode: str = "teacher_forcing"
    step: int | None = None
    state: str = "value"
    correct: int | None = None
    tokens: int | None = None
    token_accuracy: float | None = None
    prefix: float | None = None
    close_calls: int | None = None
    seconds: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        where = f"ladder cell at length {self.length}"
        if self.state not in STATES:
            raise ValueError(f"{where}: state {self.state!r} is none of {', '.join(STATES)}")
        if self.state != "value":
            if not self.reason:
                raise ValueError(f"{where}: state {self.state} needs a reason")
            if self.correct is not None:
                raise ValueError(f"{where}: state {self.state} cannot have a count of correct")
        elif self.correct is None or not 0 <= self.correct <= self.samples or self.samples < 1:
            raise ValueError(f"{where}: {self.correct} correct of {self.samples} is not a count")

    @property
    def exact_match(self) -> float | None:
        """Fraction in [0, 1]; None unless the state is `value`."""
        return None if self.correct is None else self.correct / self.samples

    @property
    def key(self) -> tuple:
        """What identifies an evaluation: the same key again replaces it, another is kept beside."""
        return (self.length, self.samples, self.seed, self.decode, self.step)


@dataclass(frozen=True)
class Training:
    """How training went. step: the last one done; seconds: wall time; final_loss: nats."""

    status: str
    step: int
    seconds: float = 0.0
    device: str = ""
    final_loss: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"training status {self.status!r} is none of {', '.join(STATUSES)}")


@dataclass(frozen=True)
class Selection:
    """The selected checkpoint. degenerate: its monitor could not tell checkpoints apart."""

    step: int
    monitor: str
    value: float | None = None
    token_accuracy: float | None = None
    degenerate: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Validation:
    """The selected checkpoint at one validation length: fractions, None where not finite."""

    exact_match: float | None
    token_accuracy: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """One training run and everything that was evaluated of it.

    group: hash of the config without seed and learning rate; who shares it is one experiment.
    labels: at least task, attention, position.
    settings: at least seed, lr, train_lengths [shortest, longest].
    fate: what training's metrics say of it, plateau_left_at and others; empty while it runs.
    Raises ValueError if one of these is missing or of another type.
    """

    run: str
    hash: str
    group: str
    labels: dict[str, str]
    settings: dict[str, Any]
    training: Training
    selection: Selection | None = None
    validation: dict[int, Validation] = field(default_factory=dict)
    ladder: tuple[Cell, ...] = ()
    fate: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, required in (("labels", REQUIRED_LABELS), ("settings", REQUIRED_SETTINGS)):
            missing = [name for name in required if name not in getattr(self, part)]
            if missing:
                raise ValueError(f"{part} lack {', '.join(missing)}")
        lengths = self.settings["train_lengths"]
        if not lengths or not all(isinstance(n, int) for n in lengths):
            raise ValueError(f"settings.train_lengths is {lengths!r}, not [shortest, longest]")
        _typed(self.settings["seed"], int, "settings.seed")
        _typed(self.settings["lr"], float, "settings.lr")

    @property
    def seed(self) -> int:
        """The run's own seed, not an evaluation's."""
        return self.settings["seed"]

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        return self.settings["lr"]

    @property
    def train_min(self) -> int:
        """The shortest training length."""
        return min(self.settings["train_lengths"])

    @property
    def train_max(self) -> int:
        """The longest training length; beyond it is out of distribution."""
        return max(self.settings["train_lengths"])

    def merge(self, cells: Iterable[Cell]) -> "RunRecord":
        """A copy with `cells` added: the same `Cell.key` is replaced, every other cell is kept."""
        merged = {cell.key: cell for cell in (*self.ladder, *cells)}
        order = sorted(merged.values(), key=lambda cell: tuple(map(_sortable, cell.key)))
        return replace(self, ladder=tuple(order))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, plain types only; numbers that are not finite become null."""
        body = _plain({"schema": SCHEMA, **asdict(self)})
        if self.selection is None:
            del body["selection"]
        return body

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RunRecord":
        """The inverse of `to_dict`. Raises ValueError naming the part that does not fit."""
        data = dict(_typed(data, dict, "the record"))
        schema = data.pop("schema", None)
        if schema != SCHEMA:
            raise ValueError(
                f"schema {schema!r}, this version reads {SCHEMA}: use the lcg that wrote it"
            )
        parts = {"training": Training, "selection": Selection}
        for name, part in parts.items():
            if data.get(name) is not None:
                data[name] = _build(part, data[name], name)
        data["validation"] = {
            _length(length): _build(Validation, value, f"validation.{length}")
            for length, value in _typed(data.get("validation", {}), dict, "validation").items()
        }
        data["ladder"] = tuple(
            _build(Cell, cell, f"ladder[{index}]")
            for index, cell in enumerate(_typed(data.get("ladder", []), list, "ladder"))
        )
        return _build(cls, data, "the record")

    @classmethod
    def load(cls, run_dir: str | os.PathLike) -> "RunRecord":
        """Read `results.json` of a run directory. Raises RecordError: one line, file and remedy."""
        file = Path(run_dir) / FILE_NAME
        try:
            return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            raise RecordError(
                f"{file}: no such file; train this run first, or name a run directory"
            ) from None
        except OSError as error:
            raise RecordError(f"{file}: cannot be read ({error.strerror})") from None
        except ValueError as error:  # also JSONDecodeError and UnicodeDecodeError
            reason = f"not valid JSON ({error})" if type(error) is not ValueError else str(error)
            raise RecordError(
                f"{file}: {reason}; restore the file, or move the run away and rerun"
            ) from None

    def save(self, run_dir: str | os.PathLike) -> Path:
        """Write `results.json` into a run directory atomically; returns its path."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        return write_atomic(Path(run_dir) / FILE_NAME, text)


def _build(cls: type, data: Any, where: str) -> Any:
    """An instance of a dataclass from JSON; raises ValueError for a key or a type that is wrong."""
    _typed(data, dict, where)
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(data) - set(known)):
        raise ValueError(f"{where} has unknown {', '.join(unknown)}")
    optional = {f.name for f in known.values() if (f.default, f.default_factory) != (MISSING,) * 2}
    if missing := [name for name in known if name not in data and name not in optional]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    hints = get_type_hints(cls)
    for name, value in data.items():
        _typed(value, hints[name], f"{where}.{name}")
    return cls(**data)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` itself if it fits `hint` (an int fits float, a bool only bool), else ValueError."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = [get_origin(option) or option for option in options]
    fits = isinstance(value, (*kinds, int) if float in kinds else tuple(kinds))
    if not fits or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise ValueError(f"{where} is {value!r:.40}, not {expected}")
    return value


def _length(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"validation length {text!r} is not a number") from None


def _plain(value: Any) -> Any:
    """JSON types: keys as text, tuples as lists, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _sortable(part: Any) -> tuple:
    """None sorts before everything, so keys with an absent step can be ordered."""
    return (part is not None, 0 if part is None else part)
