"""Base class of tasks: drawing source and target, and assembling inputs and labels.

Shapes: `lengths` is [batch], everything else is [batch, tokens]. A *nominal* length is the one that
a config names; a task defines the number of tokens at a nominal length (`source_length`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from lcg.tasks.drawn import IGNORE, check_drawn

SPECIAL_TOKENS = ("pad", "bos", "eos", "mask", "sep")
"""Their ids follow the task's own symbols, in this order."""

KINDS = ("seq2seq", "tagging", "labelled", "masked")
RENAMED = {"ragged": "variable_length", "places": "path_fields", "remarks": "warnings"}
"""Former names of class variables and methods of a task, and their present names."""


class Batch(NamedTuple):
    """Rows of unequal length are padded on the right."""

    inputs: np.ndarray
    """[batch, tokens] int64: tokens that the model reads; PAD beyond the end of a row."""
    labels: np.ndarray
    """[batch, tokens] int64: correct outputs at these positions; IGNORE where not scored."""
    lengths: np.ndarray
    """[batch] int64: nominal lengths."""
    source: np.ndarray | None = None
    """[batch, tokens] int64: input of the encoder if source and target are separate."""
    ids: np.ndarray | None = None
    """[batch, tokens] or [batch, levels, tokens]: position ids of the inputs; None: those of the
    encoding."""


@dataclass
class Task(ABC):
    """A task of one of four kinds; a subclass is a dataclass whose fields are its options.

    seq2seq: the sequence `BOS source [SEP] target EOS`, read by one causal model. The positions
        that predict a target symbol or EOS are scored. EOS is never an input. A model with an
        encoder reads `BOS source EOS` in the encoder and `BOS target` in the decoder.
    tagging: the sequence `BOS source`, with one label per source symbol; all are scored. Without
        BOS a causal model could not count within a first run of equal symbols: while all keys are
        alike, any weights that sum to one give the same output.
    labelled: as tagging, but only some symbols are scored; the labels of the others are IGNORE.
        For a causal model: a label depends on the symbols up to its own.
    masked: as labelled, for models that see both sides of a position.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["seq2seq", "tagging", "labelled", "masked"]] = "seq2seq"
    separator: ClassVar[bool] = True
    """True when SEP stands between source and target (seq2seq)."""
    variable_length: ClassVar[bool] = False
    """True when rows of one nominal length differ in length: a row from `sample` ends at its
    first negative entry, and source_length and target_length are upper bounds."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics that `measure` returns, in addition to exact match."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that name files. Another field has a digest of their contents, so that the location of
    the files is not part of a run's identity."""

    # ---- what a subclass defines

    @abstractmethod
    def sample(
        self, rng: np.random.Generator, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw source and target, [batch, tokens] each, one row per nominal length.

        The arrays are at least as wide as their longest row. Entries beyond a row's source_length
        and target_length are ignored. Rows of a `variable_length` task end at a negative entry.
        """

    @property
    def symbol_count(self) -> int:
        """Number of the task's own symbols, labels included: the ids 0 .. symbol_count - 1."""
        label = type(self).__name__
        if not hasattr(self, "symbols"):
            raise ValueError(f"{label} has no symbol_count: define it, or a field `symbols`")
        return self.symbols

    def source_length(self, length: int | np.ndarray) -> int | np.ndarray:
        """Return the number of source tokens at a nominal length."""
        return length

    def target_length(self, length: int | np.ndarray) -> int | np.ndarray:
        """Return the number of target tokens at a nominal length, without EOS."""
        return length

    @property
    def min_length(self) -> int:
        """The smallest nominal length that the task supports."""
        return 1

    def symbol(self, symbol: int) -> str:
        """Return the text of one of the task's own symbols."""
        return str(symbol)

    def for_split(self, split: str) -> Task:
        """Return the task of an evaluation split: `self`, unless splits have different data."""
        return self

    def sample_block(
        self, rng: np.random.Generator, lengths: np.ndarray, start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the samples from `start` on of an evaluation split at one length; see `sample`.

        A task with finite splits overrides this, so that no sample repeats before all were drawn.
        """
        return self.sample(rng, lengths)

    def distinct_samples(self, split: str, length: int) -> int | None:
        """Return the number of samples of an evaluation split at a length; None if unlimited."""
        return None

    def measure(
        self, predicted: Sequence[np.ndarray], reference: Sequence[np.ndarray]
    ) -> dict[str, float]:
        """Return the `metrics`, from 0 to 100, of predicted and reference rows of tokens without
        EOS."""
        return {}

    def position_ids(
        self, batch: Batch, rng: np.random.Generator, training: bool
    ) -> np.ndarray | None:
        """Return position ids of `batch.inputs`, or None for the order of tokens.

        The ids are [batch, tokens], or [batch, levels, tokens]; only embeddings use the levels
        after the first. They may repeat and decrease: the causal mask depends on the order of
        tokens. rng is seeded by the batch.
        """
        return None

    def evidence(self, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Position [batch, tokens], in `inputs`, of the earliest token that each label depends on.

        Negative where nothing is scored and for labels that depend on no symbol. None: not stated.
        Inputs and labels are those of a causal model; the label at position t, predicted after
        reading token t, lies t - evidence tokens from it. What stands before it is given: a copied
        symbol depends on its original alone. Carries are left aside.
        """
        return None

    def trace(
        self, labels: np.ndarray, index: Callable[..., np.ndarray | int], ends: bool = True
    ) -> np.ndarray:
        """`evidence` of a seq2seq task whose k-th target symbol depends on source symbol
        index(k, n), counted from 0, where the source has n symbols; negative: on none.

        EOS depends on the token that ends the source, or on none unless `ends`, which is for
        targets whose length is not always the same.
        """
        scored = labels != IGNORE
        end = scored.argmax(axis=1)[:, None]  # position of the last token before the target
        symbol = np.arange(labels.shape[1]) - end
        source = np.broadcast_to(index(symbol, end - self.separator), labels.shape)
        where = [~scored, labels == self.eos, source < 0]
        return np.select(where, [-1, end if ends else -1, -1], source + 1)  # BOS is position 0

    def evidence_distance(self, batch: Batch) -> np.ndarray | None:
        """Tokens [batch, tokens] from each scored position to its evidence, -1 where it has none.

        None where it is not stated, and where the source is read by an encoder. Raises ValueError
        for evidence that is no earlier token.
        """
        if batch.source is not None or self.kind == "masked":
            return None
        if (evidence := self.evidence(batch.inputs, batch.labels)) is None:
            return None
        here = np.arange(batch.inputs.shape[1])
        known = (batch.labels != IGNORE) & (evidence >= 0)
        if evidence.shape != batch.labels.shape or (evidence[known] > np.nonzero(known)[1]).any():
            raise ValueError(
                f"{type(self).__name__}.evidence() must return positions of inputs "
                "[batch, tokens], none of them after its label's"
            )
        return np.where(known, here - evidence, -1)

    def chance(self, length: int) -> float:
        """Return the percentage of rows that the best answer without the source gets right."""
        return 0.0

    def warnings(self) -> list[str]:
        """Return warnings that `lcg train` logs before training, one line each."""
        return []

    # ---- what it draws, checked

    def draw(
        self, rng: np.random.Generator, lengths: np.ndarray, start: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Call `sample`, or `sample_block` from `start`, and check the result.

        Raises ValueError, in one line that names class and method, unless the result is a source
        and a target of the right shapes, with the task's own symbols.
        """
        method = "sample"
        if start is None:
            drawn = self.sample(rng, lengths)
        else:
            drawn = self.sample_block(rng, lengths, start)
            if type(self).sample_block is not Task.sample_block:
                method = "sample_block"
        check_drawn(self, method, drawn, lengths)
        return drawn[0], drawn[1]

    @property
    def partly_scored(self) -> bool:
        """True when labels may be IGNORE, so that each row has its own scored positions."""
        return self.kind in ("labelled", "masked")

    # ---- validation: one line, with the task's name

    def __post_init__(self):
        """Check every field's type against its default's; subclasses add ranges with `require`."""
        for field in fields(self):
            if field.default is MISSING:
                continue
            value, kind = getattr(self, field.name), type(field.default)
            accepted = (int, float) if kind is float else kind
            fits = isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
            self.require(fits, f"{field.name} must be {kind.__name__}, got {value!r}")

    def check_definition(self) -> None:
        """Raise ValueError, in one line, for an invalid kind or number of symbols."""
        label, count = type(self).__name__, self.symbol_count
        for old, new in RENAMED.items():
            if hasattr(type(self), old) and old not in {field.name for field in fields(self)}:
                raise ValueError(f"{label}.{old} is now {new}: rename it")
        if self.kind not in KINDS:
            raise ValueError(f"{label}.kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
            raise ValueError(
                f"{label}.symbol_count is {count!r}, expected a whole number of at least 1"
            )

    def check_evaluation(self, split: str, length: int) -> None:
        """Raise ValueError if an evaluation split has no sequence of this nominal length."""
        self.check_length(length)
        found = self.distinct_samples(split, length)
        self.require(found != 0, f"the {split} split has no samples of length {length}")

    def require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"{self.name}: {message}")

    def check_length(self, length: int) -> None:
        """Raise ValueError if the task has no sequence of this nominal length."""
        whole = isinstance(length, int | np.integer) and not isinstance(length, bool)
        self.require(whole, f"a length is a whole number, got {length!r}")
        self.require(
            length >= self.min_length,
            f"length {length} is too short, the least possible is {self.min_length}",
        )

    # ---- the vocabulary

    pad = property(lambda self: self.symbol_count)
    bos = property(lambda self: self.symbol_count + 1)
    eos = property(lambda self: self.symbol_count + 2)
    mask = property(lambda self: self.symbol_count + 3)
    sep = property(lambda self: self.symbol_count + 4)

    @property
    def vocabulary(self) -> int:
        """The number of token ids of a model for this task."""
        return self.symbol_count + len(SPECIAL_TOKENS)

    def token_length(self, length: int | np.ndarray) -> int | np.ndarray:
        """Return the number of tokens of the whole sequence, with BOS, SEP and EOS."""
        if self.kind != "seq2seq":
            return self.source_length(length) + 1
        specials = 3 if self.separator else 2
        return self.source_length(length) + self.target_length(length) + specials

    # ---- from symbols to what a model is given

    def encode(
        self, rng: np.random.Generator, lengths: np.ndarray, separate_source: bool = False
    ) -> Batch:
        """Draw one sequence per nominal length."""
        return self.assemble(*self.draw(rng, lengths), lengths, separate_source)

    def assemble(
        self,
        source: np.ndarray,
        target: np.ndarray,
        lengths: np.ndarray,
        separate_source: bool = False,
    ) -> Batch:
        """Turn sampled rows into inputs and labels, trimmed to the longest row.

        With `separate_source`, for seq2seq: source is `BOS source EOS`, inputs are `BOS target` and
        labels `target EOS`.
        """
        # 16 bits while assembling: a quarter of the memory traffic of the int64 we return.
        dtype = np.int16 if self.vocabulary <= np.iinfo(np.int16).max else np.int32
        lengths = np.array(lengths, np.int64)  # a copy: callers may pass a read-only view
        counts = [self.count_symbols(source, self.source_length(lengths), lengths)]
        if self.kind != "seq2seq":
            inputs, labels = self._assemble_tagging(source, target, *counts, dtype)
            return Batch(inputs.astype(np.int64), labels.astype(np.int64), lengths)
        counts.append(self.count_symbols(target, self.target_length(lengths), lengths))
        if not separate_source:
            inputs, labels = self._assemble_seq2seq(source, target, *counts, dtype)
            return Batch(inputs.astype(np.int64), labels.astype(np.int64), lengths)
        framed = self._framed(target, counts[1], dtype).astype(np.int64)
        inputs, labels = framed[:, :-1].copy(), framed[:, 1:].copy()
        beyond = np.arange(inputs.shape[1]) > counts[1]
        inputs[beyond], labels[beyond] = self.pad, IGNORE
        return Batch(
            inputs, labels, lengths, self._framed(source, counts[0], dtype).astype(np.int64)
        )

    def count_symbols(
        self, rows: np.ndarray, declared: int | np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Count the symbols of each row, [batch, 1]: as declared, or up to a row's end."""
        if not self.variable_length:
            return _column(declared, lengths)
        ends = np.pad(rows, ((0, 0), (0, 1)), constant_values=-1) < 0
        return ends.argmax(axis=1).astype(np.int32)[:, None]

    def _framed(self, rows: np.ndarray, count: np.ndarray, dtype) -> np.ndarray:
        """BOS, the symbols of a row, EOS, padding."""
        width = count.max()
        framed = np.full((len(rows), width + 2), self.pad, dtype)
        framed[:, 0] = self.bos
        np.copyto(
            framed[:, 1:-1],
            rows[:, :width].astype(dtype, copy=False),
            where=np.arange(width, dtype=np.int32) < count,
        )
        framed[np.arange(len(rows))[:, None], count + 1] = self.eos
        return framed

    def _assemble_tagging(self, source, target, count, dtype):
        end = 1 + count
        width = end.max()
        inputs = np.full((len(source), width), self.bos, dtype)
        labels = np.full((len(source), width), IGNORE, dtype)
        inputs[:, 1:], labels[:, 1:] = source[:, : width - 1], target[:, : width - 1]
        beyond = np.arange(width, dtype=np.int32) >= end
        inputs[beyond] = self.pad
        labels[beyond] = IGNORE
        return inputs, labels

    def _assemble_seq2seq(self, source, target, source_count, count, dtype):
        source_end = 1 + source_count  # after BOS and source
        start = source_end + self.separator  # of the target
        end = start + count  # where EOS stands
        rows, columns = len(source), np.arange(end.max() + 1, dtype=np.int32)
        row = np.arange(rows)[:, None]

        tokens = np.empty((rows, columns.size), dtype)
        tokens[:, 0] = self.bos
        source_width = source_end.max() - 1
        tokens[:, 1 : 1 + source_width] = source[:, :source_width]
        if self.separator:
            tokens[row, source_end] = self.sep
        beyond = columns >= end
        scored = (columns >= start) & ~beyond
        # Masks select row by row, so the i-th place of one meets the i-th of the other.
        target_width = count.max()
        valid = np.arange(target_width, dtype=np.int32) < count
        tokens[scored] = target[:, :target_width][valid]
        tokens[row, end] = self.eos
        scored[row, end] = True

        labels = np.full_like(tokens, IGNORE)
        np.copyto(labels, tokens, where=scored)
        np.copyto(tokens, dtype(self.pad), where=beyond)
        return tokens[:, :-1], labels[:, 1:]

    # ---- for people

    def text(self, token: int) -> str:
        """Return one token, or label, as text."""
        if token == IGNORE:
            return "."
        if token >= self.symbol_count:
            return f"<{SPECIAL_TOKENS[token - self.symbol_count]}>"
        return self.symbol(int(token))

    def render(self, tokens: np.ndarray) -> str:
        """Return a row of inputs or labels as text."""
        return " ".join(map(self.text, tokens))

    def example(self, length: int, seed: int = 0) -> str:
        """Return one sequence as two aligned lines: the inputs and the labels."""
        self.check_length(length)
        batch = self.encode(np.random.default_rng(seed), np.array([length]))
        lines = [("inputs", *map(self.text, batch.inputs[0]))]
        lines += [("labels", *map(self.text, batch.labels[0]))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (map(str.ljust, line, widths) for line in lines)
        return "\n".join(" ".join(line).rstrip() for line in padded)


def uniform(rng: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw integers in [low, high), as 16-bit numbers if possible, which is twice as fast."""
    return rng.integers(low, high, shape, dtype=np.uint16 if high <= 2**16 else np.int64)


def distinct(rng: np.random.Generator, high: int, rows: int, count: int) -> np.ndarray:
    """Draw [rows, count] integers below `high`, distinct within a row, uniformly."""
    if count**2 > high:
        return rng.permuted(np.tile(np.arange(high), (rows, 1)), axis=1)[:, :count]
    # Few among many: draw again the rows with a repetition, at most two of five on average.
    drawn = rng.integers(0, high, (rows, count))
    repeats = np.arange(rows)
    while repeats.size:
        ordered = np.sort(drawn[repeats], axis=1)
        repeats = repeats[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        drawn[repeats] = rng.integers(0, high, (repeats.size, count))
    return drawn


def others(
    rng: np.random.Generator, taken: np.ndarray, high: int, shape: tuple[int, int]
) -> np.ndarray:
    """Draw integers below `high` other than the row's `taken` [rows, count], which are distinct."""
    rows, count = taken.shape
    drawn = rng.integers(0, high - count, shape)
    # The i-th of those taken (in order) moves all drawn numbers from taken - i on by one.
    row = high * np.arange(rows)[:, None]
    steps = np.sort(taken, axis=1) - np.arange(count) + row
    passed = np.searchsorted(steps.ravel(), (drawn + row).ravel(), side="right").reshape(shape)
    return drawn + passed - count * np.arange(rows)[:, None]


def places(
    rng: np.random.Generator, rooms: np.ndarray, count: int, power: float = 1.0
) -> np.ndarray:
    """Draw [rows, count] distinct places in 0 .. rooms - 1 of each row, in random order.

    One after the other without replacement, place g - 1 with a weight of g^(power - 1).
    """
    column = np.arange(1, rooms.max() + 1)
    # The first to arrive, where each arrives at a rate that is its weight.
    arrival = rng.exponential(size=(len(rooms), column.size))
    if power != 1:
        arrival *= column ** (1 - power)
    arrival[column > rooms[:, None]] = np.inf
    first = np.argpartition(arrival, count - 1, axis=1)[:, :count]
    return rng.permuted(np.sort(first, axis=1), axis=1)  # whose order depends on the machine


def shuffled(rng: np.random.Generator, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the first symbols of each row, as many as its length, in random order."""
    keys = rng.random(rows.shape)
    keys[np.arange(rows.shape[1]) >= lengths[:, None]] = 2  # what lies beyond stays there
    return np.take_along_axis(rows, keys.argsort(axis=1), axis=1)


def _column(values: int | np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """One value per row as a [batch, 1] column; 32 bits, since it is compared with every token."""
    return np.broadcast_to(values, lengths.shape).astype(np.int32)[:, None]
