"""The run record: what `results.json` in a run directory holds, read and written safely.

A record is immutable; new evaluations are merged into a copy which is then saved:

    record = RunRecord.load("runs/copy-softmax-nape-s0-1a2b3c4d")
    record.merge(cells).save("runs/copy-softmax-nape-s0-1a2b3c4d")

The annotations below are the schema: `RunRecord.from_dict`, which `save` calls too, holds JSON to
their types and limits.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from lcg.config.schema import COUNT, RATE, SEED
from lcg.runs.files import RECORD, RECORD_LOCK, exclusively, write_atomic
from lcg.system import require_file

SCHEMA = 2
READABLE = (1, SCHEMA)  # 1 lacks the changes of a cell
STATES = ("value", "skipped", "out_of_memory", "did_not_train", "not_finite")
STATUSES = ("running", "finished", "interrupted", "not_finite")
REQUIRED_LABELS = ("task", "attention", "position")
LABEL = 1000  # characters

Length = Annotated[int, (1, COUNT)]
Count = Annotated[int, (0, COUNT)]
Large = Annotated[int, (0, SEED)]
Seconds = Annotated[float, (0, SEED)]
Fraction = Annotated[float, (0, 1)]

SETTINGS = {"seed": Large, "lr": Annotated[float, (0, RATE)], "train_lengths": list[Length]}
"""Those that every run has; train_lengths: shortest and longest."""


class RecordError(ValueError):
    """A record cannot be read or is inconsistent; the message is one line, naming the file."""


def report_problems(
    problems: Sequence[str], report: Callable[[str], None] | None, some_left: bool
) -> None:
    """Call `report` with each problem of several records; `some_left`: some record can be used.

    Raises RecordError, naming them all, without `report`, and if no record can be used.
    """
    if problems and (report is None or (not some_left and len(problems) == 1)):
        raise RecordError(" | ".join(problems))
    for problem in problems:
        report(problem)
    if not some_left:
        raise RecordError("none of the records can be read; there is nothing to show")


@dataclass(frozen=True)
class Cell:
    """One length of the length ladder: `correct` exact matches among `samples` sequences.

    length: the task's nominal length; tokens: the whole sequence's true length in tokens.
    seed: the evaluation seed. step: the checkpoint's training step, None if there was none.
    token_accuracy, prefix: fractions in [0, 1] (prefix: longest correct prefix / target length).
    close_calls: scored positions whose two best logits nearly tie. seconds: wall time.
    oracle_length: exact match where EOS is not scored, as if the length were known; None where
    nothing ends with EOS. edit_distance: Levenshtein distance of decoded targets per token of them,
    None without decoding.
    by_part, by_distance: [right, scored] positions by the part of a row's scored positions (up to
    10 %, 20 %, …) and by the number of tokens to the evidence (less than 1, 2, 4, …).
    state: `value`, or why there is none; every other state carries a `reason`.
    outcomes: which samples were exact matches, one bit each in hexadecimal: sample 0 is the most
    significant bit of the first digit, zeros pad the last. None in records that do not have them.
    metrics: what the task measures beside exact match, by name, 0 to 100; None if nothing.
    changes: the options of position and attention that the run was evaluated with in place of its
    own, by dotted name; of a user's class `name` and `source`, the hash of its code. Empty: none.
    Raises ValueError for an unknown state, counts that do not fit, or a missing reason.
    """

    length: Length
    samples: Count
    seed: Large
    decode: str = "teacher_forcing"
    step: Count | None = None
    state: str = "value"
    correct: int | None = None
    tokens: Large | None = None
    token_accuracy: Fraction | None = None
    prefix: Fraction | None = None
    close_calls: Large | None = None
    oracle_length: Fraction | None = None
    edit_distance: Fraction | None = None
    by_part: dict[int, list[Large]] | None = field(default=None, hash=False)
    by_distance: dict[int, list[Large]] | None = field(default=None, hash=False)
    seconds: Seconds | None = None
    reason: str = ""
    outcomes: str | None = None
    metrics: dict[str, float] | None = None
    changes: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        where = f"ladder cell at length {self.length}"
        if self.state not in STATES:
            raise ValueError(f"{where}: state {self.state!r} is not one of {', '.join(STATES)}")
        if self.state != "value":
            if not self.reason:
                raise ValueError(f"{where}: state {self.state} needs a reason")
            if self.correct is not None:
                raise ValueError(f"{where}: state {self.state} cannot have a count of correct")
        elif self.correct is None or not 0 <= self.correct <= self.samples or self.samples < 1:
            raise ValueError(f"{where}: {self.correct} correct of {self.samples} is not a count")
        for name in ("by_part", "by_distance"):
            for pair in (getattr(self, name) or {}).values():
                if len(pair) != 2 or not 0 <= pair[0] <= pair[1] or not pair[1]:
                    raise ValueError(f"{where}: {name} has {pair!r:.40}, not [right, scored]")
        if self.outcomes is not None and not self._outcomes_fit():
            raise ValueError(
                f"{where}: outcomes are not {self.samples} bits of which {self.correct} are set"
            )

    def _outcomes_fit(self) -> bool:
        """Whole hexadecimal digits, as many bits set as correct, none of them in the padding."""
        digits = -(-self.samples // 4)
        if len(self.outcomes) != digits or not re.fullmatch("[0-9a-f]+", self.outcomes):
            return False
        return self.correct == int(self.outcomes, 16).bit_count() == self.bits.bit_count()

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
        """The identity of an evaluation: a cell with the same key replaces it, others are kept."""
        fields = (self.length, self.samples, self.seed, self.decode, self.step)
        return cell_key(*fields, self.changes)


def cell_key(
    length: int,
    samples: int,
    seed: int,
    decode: str,
    step: int | None,
    changes: Mapping[str, Any],
) -> tuple:
    """Return the `Cell.key` of a cell with these fields."""
    return length, samples, seed, decode, step, json.dumps(changes, sort_keys=True)


@dataclass(frozen=True)
class Training:
    """State of training. step: the last one done; seconds: wall time; final_loss: nats."""

    status: str
    step: Count
    seconds: Seconds = 0.0
    device: str = ""
    final_loss: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"training status {self.status!r} is not one of {', '.join(STATUSES)}")


@dataclass(frozen=True)
class Selection:
    """The selected checkpoint. degenerate: its monitor could not tell checkpoints apart."""

    step: Count
    monitor: str
    value: Fraction | None = None
    token_accuracy: Fraction | None = None
    degenerate: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Validation:
    """The selected checkpoint at one validation length: fractions, None where not finite."""

    exact_match: Fraction | None
    token_accuracy: Fraction | None = None


@dataclass(frozen=True)
class RunRecord:
    """One training run and all its evaluations.

    group: hash of the config without seed and learning rate; runs of one group are one experiment.
    labels: at least task, attention, position. settings: SETTINGS and others; kind of the model is
    decoder if missing; sources: name and hash of the code (`digest`) of each user's own class, by
    kind. task: the task's options, which determine the samples; empty in records that lack them.
    validation: the selected checkpoint, at the lengths validated in training, and at the longer
    ones that broke a tie between runs. fate: statistics of the training metrics, such as
    plateau_left_at; empty while the run trains. config: the part of the config that `group` hashes;
    empty in records that lack it.
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
        """Return a copy with `cells` added: the same `Cell.key` is replaced, every other cell is
        kept."""
        merged = {cell.key: cell for cell in (*self.ladder, *cells)}

        def order(cell: Cell) -> list[tuple[bool, Any]]:  # an absent step before every other
            return [(part is not None, part or 0) for part in cell.key]

        return replace(self, ladder=tuple(sorted(merged.values(), key=order)))

    def with_validation(self, found: Mapping[int, Validation]) -> "RunRecord":
        """Return a copy with results at other validation lengths; existing ones are kept."""
        return replace(self, validation=dict(sorted({**found, **self.validation}.items())))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, plain types only; numbers that are not finite become null."""
        body = _plain({"schema": SCHEMA, **vars(self)})
        if self.selection is None:
            del body["selection"]
        return body

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RunRecord":
        """Return the record of a JSON form. Raises ValueError naming the invalid part."""
        data = dict(_read(dict, data, "record"))
        if (schema := data.pop("schema", None)) not in READABLE:
            readable = " and ".join(map(str, READABLE))
            raise ValueError(
                f"schema {schema!r}, this version reads {readable}: use the lcg that wrote it"
            )
        record = _read(cls, data, "record")
        for part, required in (("labels", REQUIRED_LABELS), ("settings", SETTINGS)):
            if missing := [name for name in required if name not in data[part]]:
                raise ValueError(f"{part} lack {', '.join(missing)}")
        for name, label in record.labels.items():
            if len(label) > LABEL or "\n" in label:
                raise ValueError(f"labels.{name} is not one line of at most {LABEL} characters")
        settings = record.settings
        for name, hint in SETTINGS.items():
            _read(hint, settings[name], f"settings.{name}")
        lengths = settings["train_lengths"]
        if len(lengths) != 2 or lengths[0] > lengths[1]:
            raise ValueError(f"settings.train_lengths is {lengths!r:.40}, not [shortest, longest]")
        sources = _read(dict[str, dict[str, str]], settings.get("sources", {}), "settings.sources")
        for kind, source in sources.items():
            if not {"name", "digest"} <= source.keys():
                raise ValueError(f"settings.sources.{kind} lacks its name or its digest")
        return record

    @classmethod
    def load(cls, run_dir: str | os.PathLike, of: str | None = None) -> "RunRecord":
        """Read `results.json` of a run directory; `of`: the hash that the run must have.

        Raises RecordError: one line, with the file and what to do.
        """
        file = Path(run_dir) / RECORD
        try:
            require_file(file)
            record = cls.from_dict(load_json(file.read_text(encoding="utf-8")))
            if of not in (None, record.hash):
                raise ValueError(f"it belongs to run {record.hash}, not to {of}")
            return record
        except (FileNotFoundError, NotADirectoryError):
            problem = "no such file; train this run first, or name a run directory"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except RecursionError:
            problem = "nested too deeply to be a record"
        except ValueError as error:  # also JSONDecodeError and UnicodeDecodeError
            reason = f"not valid JSON ({error})" if type(error) is not ValueError else str(error)
            problem = f"{reason}; restore the file, or move the run directory away and train again"
        raise RecordError(f"{file}: {problem}")

    @staticmethod
    def updating(run_dir: str | os.PathLike) -> AbstractContextManager[None]:
        """Lock a run's record from `load` to `save`, so that no concurrent update is lost."""
        return exclusively(Path(run_dir) / RECORD_LOCK)

    def save(self, run_dir: str | os.PathLike) -> Path:
        """Write `results.json` into a run directory atomically; return its path.

        Raises ValueError, naming the part, for a record that could not be read again.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        self.from_dict(load_json(text))
        return write_atomic(Path(run_dir) / RECORD, text)


def load_json(text: str) -> Any:
    """Parse JSON. Raises ValueError for values that Python reads but cannot use or write again.

    These are numbers that are not finite or beyond floats, unpaired surrogates, and deep nesting.
    """
    data = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 500 else math.inf)
    _check_json(data, "it")
    return data


def read_mapping(file: Path) -> dict[str, Any]:
    """Read the mapping in a JSON file; empty if missing, damaged or not a mapping."""
    try:
        require_file(file)
        content = load_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


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
            raise ValueError(f"{where!r:.40} has an unpaired surrogate")
    elif isinstance(data, int | float) and not abs(data) <= sys.float_info.max:
        raise ValueError(f"{where!r:.40} is not a finite number")


@cache
def _schema(cls: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the annotations of a dataclass, and its fields without a default."""
    required = (f.name for f in fields(cls) if f.default is f.default_factory)  # MISSING
    return get_type_hints(cls, include_extras=True), frozenset(required)


@cache
def _rule(hint: Any) -> tuple[tuple[type, ...], str, Any, Any]:
    """Return the JSON types of an annotation, their names, its limits, and it without these."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    first = options[0]
    main, limits = get_args(first) if get_origin(first) is Annotated else (first, None)
    kind = dict if is_dataclass(main) else get_origin(main) or main
    types = {tuple: (list,), float: (float, int)}.get(kind, (kind,)) + options[1:]
    names = " or ".join("null" if t is NoneType else t.__name__ for t in (types[0], *options[1:]))
    return types, names, limits, main


def _read(hint: Any, value: Any, where: str) -> Any:
    """Convert JSON by an annotation: mappings to dataclasses, lists to tuples, numbers to keys.

    An int fits float, a bool only bool. Raises ValueError, naming the invalid part.
    """
    types, names, limits, main = _rule(hint)
    if type(value) not in types:
        raise ValueError(f"{where} is {value!r:.40}, not {names}")
    if value is None:
        return None
    if is_dataclass(main):
        hints, required = _schema(main)
        if unknown := sorted(value.keys() - hints.keys()):
            raise ValueError(f"{where} has unknown {', '.join(unknown)}")
        if missing := sorted(required - value.keys()):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        return main(**{k: _read(hints[k], item, f"{where}.{k}") for k, item in value.items()})
    if limits and not limits[0] <= value <= limits[1]:
        raise ValueError(f"{where} is {value!r:.40}, not from {limits[0]} to {limits[1]}")
    arms = get_args(main)
    if Any in arms or not arms:
        return value
    if isinstance(value, list):
        items = (_read(arms[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        return get_origin(main)(items)
    key = _whole if arms[0] is int else str
    return {key(k): _read(arms[1], item, f"{where}.{k}") for k, item in value.items()}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and 0 < int(text) <= COUNT):
        raise ValueError(f"the key {text!r:.40} is not a whole number")
    return int(text)


def _plain(value: Any) -> Any:
    """Convert to JSON types: records to mappings, keys to text, tuples to lists, NaN to null."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
