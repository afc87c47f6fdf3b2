"""The run record: what `results.json` in a run directory holds, read and written safely.

A record is immutable; new evaluations are merged into a copy which is then saved:

    record = RunRecord.load("runs/copy-softmax-nape-s0-1a2b3c4d")
    record.merge(cells).save("runs/copy-softmax-nape-s0-1a2b3c4d")
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lcg.config.schema import COUNT, RATE, SEED
from lcg.runs.files import RECORD, RECORD_LOCK, exclusively, write_atomic
from lcg.system import require_file

SCHEMA = 1
STATES = ("value", "skipped", "out_of_memory", "did_not_train", "not_finite")
STATUSES = ("running", "finished", "interrupted", "not_finite")
REQUIRED_LABELS = ("task", "attention", "position")
REQUIRED_SETTINGS = ("seed", "lr", "train_lengths")
LABEL = 1000  # characters
HEXADECIMAL = re.compile("[0-9a-f]+")


class RecordError(ValueError):
    """A record that cannot be read, or that contradicts itself: one line, naming the file."""


@dataclass(frozen=True)
class Cell:
    """One length of the length ladder: `correct` exact matches among `samples` sequences.

    length: the task's nominal length; tokens: the whole sequence's true length in tokens.
    seed: the evaluation seed. step: the checkpoint's training step, None if there was none.
    token_accuracy, prefix: fractions in [0, 1] (prefix: longest correct prefix / target length).
    close_calls: scored positions whose two best logits nearly tie. seconds: wall time.
    state: `value`, or why there is none; every other state carries a `reason`.
    outcomes: which samples were exact matches, one bit each in hexadecimal: sample 0 is the most
    significant bit of the first digit, zeros pad the last. None in records that do not have them.
    metrics: what the task measures beside exact match, by name, 0 to 100; None if nothing.
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
    outcomes: str | None = None
    metrics: dict[str, float] | None = None

    def __post_init__(self) -> None:
        where = f"ladder cell at length {self.length}"
        _within(where, self, least=1, most=COUNT, names=("length",))
        _within(where, self, most=COUNT, names=("samples", "step"))
        _within(where, self, most=SEED, names=("seed", "tokens", "close_calls", "seconds"))
        _within(where, self, most=1, names=("token_accuracy", "prefix"))
        if self.state not in STATES:
            raise ValueError(f"{where}: state {self.state!r} is none of {', '.join(STATES)}")
        if self.state != "value":
            if not self.reason:
                raise ValueError(f"{where}: state {self.state} needs a reason")
            if self.correct is not None:
                raise ValueError(f"{where}: state {self.state} cannot have a count of correct")
        elif self.correct is None or not 0 <= self.correct <= self.samples or self.samples < 1:
            raise ValueError(f"{where}: {self.correct} correct of {self.samples} is not a count")
        for name, value in (self.metrics or {}).items():
            if not math.isfinite(_typed(value, float, f"{where}: metrics.{name}")):
                raise ValueError(f"{where}: metrics.{name} is {value!r}, not finite")
        if self.outcomes is not None and not self._outcomes_fit():
            raise ValueError(
                f"{where}: outcomes are not {self.samples} bits of which {self.correct} are set"
            )

    def _outcomes_fit(self) -> bool:
        """Whole hexadecimal digits, as many bits set as correct, none of them in the padding."""
        digits = -(-self.samples // 4)
        if len(self.outcomes) != digits or not HEXADECIMAL.fullmatch(self.outcomes):
            return False
        bits = int(self.outcomes, 16)
        padding = (1 << (4 * digits - self.samples)) - 1
        return bits & padding == 0 and bits.bit_count() == self.correct

    @property
    def bits(self) -> int | None:
        """`outcomes` as a number of `samples` bits, sample 0 the most significant."""
        if self.outcomes is None:
            return None
        return int(self.outcomes, 16) >> (-self.samples % 4)

    @property
    def exact_match(self) -> float | None:
        """Fraction in [0, 1]; None unless the state is `value`."""
        return None if self.correct is None else self.correct / self.samples

    @property
    def key(self) -> tuple:
        """Identity of an evaluation: the same key again replaces it, another is kept beside."""
        return (self.length, self.samples, self.seed, self.decode, self.step)


@dataclass(frozen=True)
class Training:
    """State of training. step: the last one done; seconds: wall time; final_loss: nats."""

    status: str
    step: int
    seconds: float = 0.0
    device: str = ""
    final_loss: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"training status {self.status!r} is none of {', '.join(STATUSES)}")
        _within("training", self, most=COUNT, names=("step",))
        _within("training", self, most=SEED, names=("seconds",))


@dataclass(frozen=True)
class Selection:
    """The selected checkpoint. degenerate: its monitor could not tell checkpoints apart."""

    step: int
    monitor: str
    value: float | None = None
    token_accuracy: float | None = None
    degenerate: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        _within("selection", self, most=COUNT, names=("step",))
        _within("selection", self, most=1, names=("value", "token_accuracy"))


@dataclass(frozen=True)
class Validation:
    """The selected checkpoint at one validation length: fractions, None where not finite."""

    exact_match: float | None
    token_accuracy: float | None = None

    def __post_init__(self) -> None:
        _within("validation", self, most=1, names=("exact_match", "token_accuracy"))


@dataclass(frozen=True)
class RunRecord:
    """One training run and everything that was evaluated of it.

    group: hash of the config without seed and learning rate; who shares it is one experiment.
    labels: at least task, attention, position.
    settings: at least seed, lr, train_lengths [shortest, longest]; kind, of the model, is
    a decoder where it is lacking.
    task: the task's options, of which the samples are made; empty in records that lack them.
    validation: the selected checkpoint, at the lengths it was validated at while it trained, and at
    the longer ones that broke a tie between runs.
    fate: what training's metrics say of it, plateau_left_at and others; empty while it runs.
    config: the part of the config that `group` is a hash of; empty in records that lack it.
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
    task: dict[str, Any] = field(default_factory=dict)
    fate: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, required in (("labels", REQUIRED_LABELS), ("settings", REQUIRED_SETTINGS)):
            missing = [name for name in required if name not in getattr(self, part)]
            if missing:
                raise ValueError(f"{part} lack {', '.join(missing)}")
        for name, label in self.labels.items():
            _typed(label, str, f"labels.{name}")
        lengths = self.settings["train_lengths"]
        whole = isinstance(lengths, list | tuple) and all(type(n) is int for n in lengths)
        if not whole or len(lengths) != 2 or not 1 <= lengths[0] <= lengths[1] <= COUNT:
            raise ValueError(
                f"settings.train_lengths is {lengths!r:.40}, not [shortest, longest], 1 to {COUNT}"
            )
        for name, kind, most in (("seed", int, SEED), ("lr", float, RATE)):
            _typed(self.settings[name], kind, f"settings.{name}")
            _within("settings", self.settings, most=most, names=(name,))
        for kind, source in _typed(
            self.settings.get("sources", {}), dict, "settings.sources"
        ).items():
            where = f"settings.sources.{kind}"
            for part in ("name", "digest"):
                _typed(_typed(source, dict, where).get(part), str, f"{where}.{part}")

    @property
    def seed(self) -> int:
        """The run's own seed, not an evaluation's."""
        return self.settings["seed"]

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """Name and hash of the code of users' own classes, by kind; empty for built-in ones."""
        return self.settings.get("sources", {})

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

        def order(cell: Cell) -> list[tuple[bool, Any]]:  # an absent step before every other
            return [(part is not None, part or 0) for part in cell.key]

        return replace(self, ladder=tuple(sorted(merged.values(), key=order)))

    def with_validation(self, found: Mapping[int, Validation]) -> "RunRecord":
        """A copy that also has what was `found` at other validation lengths; its own stay."""
        return replace(self, validation=dict(sorted({**found, **self.validation}.items())))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, plain types only; numbers that are not finite become null."""
        body = _plain({"schema": SCHEMA, **vars(self)})
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
        for name, label in _typed(data.get("labels", {}), dict, "labels").items():
            if len(_typed(label, str, f"labels.{name}")) > LABEL or "\n" in label:
                raise ValueError(f"labels.{name} is no line of at most {LABEL} characters")
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
    def load(cls, run_dir: str | os.PathLike, of: str | None = None) -> "RunRecord":
        """Read `results.json` of a run directory; `of` is the hash of the run it must be of.

        Raises RecordError: one line, file and remedy.
        """
        file = Path(run_dir) / RECORD
        try:
            require_file(file)
            record = cls.from_dict(load_json(file.read_text(encoding="utf-8")))
            if of not in (None, record.hash):
                raise ValueError(
                    f"it is of another run ({record.hash}) than the one at work ({of})"
                )
            return record
        except (FileNotFoundError, NotADirectoryError):
            raise RecordError(
                f"{file}: no such file; train this run first, or name a run directory"
            ) from None
        except OSError as error:
            raise RecordError(f"{file}: cannot be read ({error.strerror})") from None
        except RecursionError:
            raise RecordError(f"{file}: nested too deeply to be a record") from None
        except ValueError as error:  # also JSONDecodeError and UnicodeDecodeError
            reason = f"not valid JSON ({error})" if type(error) is not ValueError else str(error)
            raise RecordError(
                f"{file}: {reason}; restore the file, or move the run away and rerun"
            ) from None

    @staticmethod
    def updating(run_dir: str | os.PathLike) -> AbstractContextManager[None]:
        """Hold a run's record from `load` to `save`, so that of two who add to it both do."""
        return exclusively(Path(run_dir) / RECORD_LOCK)

    def save(self, run_dir: str | os.PathLike) -> Path:
        """Write `results.json` into a run directory atomically; returns its path.

        Raises ValueError, naming the part, for a record that could not be read again.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        self.from_dict(load_json(text))
        return write_atomic(Path(run_dir) / RECORD, text)


def load_json(text: str) -> Any:
    """Parse JSON. Raises ValueError for what Python reads and nobody can use or write again.

    That is a number that is not finite or beyond what a float holds, half of a character, or deep
    nesting.
    """
    data = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 500 else math.inf)
    _check_json(data, "it")
    return data


def _check_json(data: Any, where: str) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            _check_json(key, "a key")
            _check_json(value, key)
    elif isinstance(data, list):
        for value in data:
            _check_json(value, where)
    elif isinstance(data, str):
        if any("\ud800" <= character <= "\udfff" for character in data):
            raise ValueError(f"{where!r:.40} has half of a character")
    elif isinstance(data, int | float) and not abs(data) <= sys.float_info.max:
        raise ValueError(f"{where!r:.40} is no number that can be used")


def _build(cls: type, data: Any, where: str) -> Any:
    """An instance of a dataclass from JSON; raises ValueError for a key or a type that is wrong."""
    _typed(data, dict, where)
    known, required = _fields(cls)
    if unknown := sorted(data.keys() - known.keys()):
        raise ValueError(f"{where} has unknown {', '.join(unknown)}")
    if missing := [name for name in required if name not in data]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    for name, value in data.items():
        kinds = known[name]
        if type(value) not in kinds:  # else there is nothing to explain, and nothing to format
            _typed_as(value, kinds, f"{where}.{name}")
    return cls(**data)


@cache
def _fields(cls: type) -> tuple[dict[str, tuple[type, ...]], tuple[str, ...]]:
    """Return the types of a dataclass's fields, and which of them have no default."""
    hints = get_type_hints(cls)
    required = [f.name for f in fields(cls) if (f.default, f.default_factory) == (MISSING,) * 2]
    return {f.name: _kinds(hints[f.name]) for f in fields(cls)}, tuple(required)


@cache
def _kinds(hint: Any) -> tuple[type, ...]:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(get_origin(option) or option for option in options)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` itself if it fits `hint` (an int fits float, a bool only bool), else ValueError."""
    return _typed_as(value, _kinds(hint), where)


def _typed_as(value: Any, kinds: tuple[type, ...], where: str) -> Any:
    fits = isinstance(value, (*kinds, int) if float in kinds else kinds)
    if not fits or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise ValueError(f"{where} is {value!r:.40}, not {expected}")
    return value


def _within(
    where: str, values: Any, *, names: tuple[str, ...], most: float, least: float = 0
) -> None:
    """Raise ValueError for a number that is there and not from `least` to `most`."""
    for name in names:
        value = values[name] if isinstance(values, dict) else getattr(values, name)
        if value is not None and not math.isnan(value) and not least <= value <= most:
            raise ValueError(f"{where}: {name} is {value!r:.40}, not from {least} to {most}")


def _length(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and 0 < int(text) <= COUNT):
        raise ValueError(f"validation length {text!r:.40} is not a number")
    return int(text)


def _plain(value: Any) -> Any:
    """JSON types: records as mappings, keys as text, tuples as lists, NaN and infinity as null."""
    if isinstance(value, Cell | Training | Selection | Validation):
        value = vars(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
