"""Properties of a task: its vocabulary, its lengths, samples that follow from their address."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lcg.checks.properties import DoesNotApply, Properties, expect
from lcg.config import load_task
from lcg.tasks.base import IGNORE, Batch, Task
from lcg.tasks.streams import EvalStream, train_batch, train_rng

MORE_LENGTHS = (1, 2, 3, 5, 8, 9, 16, 33, 64)
"""Nominal lengths tried, those that are too short for a task left out."""
SPLITS = ("validation", "test")
REPEATS = 20
ROWS = 256  # of a batch in which sources come again
ENOUGH = 50  # sources that came again, before a target is taken to follow from its source
ELSEWHERE = "a second process"
PROPERTIES = Properties()


class Subject(NamedTuple):
    """A task, the words that make it again in another process, and the longest length tried."""

    task: Task
    words: list[str]
    longest: int

    def lengths(self) -> list[int]:
        """Lengths that the task accepts, ascending: its least, odd and even ones, the longest."""
        least = int(self.task.min_length)
        asked = sorted({least, least + 1, *MORE_LENGTHS, self.longest})
        accepted = [length for length in asked if self._accepts(length)]
        expect(accepted, f"no length up to {self.longest} is accepted by check_length()")
        return accepted

    def few(self) -> list[int]:
        """The shortest of these."""
        return self.lengths()[:6]

    def _accepts(self, length: int) -> bool:
        try:
            self.task.check_length(length)
        except ValueError:
            return False
        return True


class Draw(NamedTuple):
    """One training batch."""

    length: int
    batch: int
    seed: int

    def __str__(self) -> str:
        return f"length {self.length}, batch size {self.batch}, seed {self.seed}"


def draws(subject: Subject, seeds: int = 2) -> Iterator[Draw]:
    """Batches from the smallest up."""
    for length in subject.lengths():
        for size in (1, 2, 7) if length <= 64 else (2,):
            for seed in range(seeds):
                yield Draw(length, size, seed)


def drawn(task: Task, case: Draw) -> Batch:
    """The batch of a case, all rows of one length."""
    return train_batch(task, case.seed, 0, case.batch, case.length, case.length)


def _defined(subject: Subject) -> Iterator[Draw]:
    subject.task.check_definition()
    yield from draws(subject)


@PROPERTIES.declare("shapes", _defined)
def shapes(subject: Subject, case: Draw) -> None:
    """Sources and targets have the shapes, types and symbols of the task."""
    drawn(subject.task, case)


@PROPERTIES.declare("mixed lengths", Subject.lengths)
def mixed_lengths(subject: Subject, longest: int) -> None:
    """Rows of several lengths are drawn together; each has the tokens that its length declares."""
    task = subject.task
    batch = train_batch(task, 0, 1, 9, subject.lengths()[0], longest)
    if task.variable_length:
        return
    for row, nominal in zip(batch.inputs, batch.lengths, strict=True):
        declared = int(task.token_length(int(nominal))) - (task.kind == "seq2seq")
        tokens = int((row != task.pad).sum())
        what = f"a row of length {nominal} has {tokens} tokens, token_length() says {declared}"
        expect(tokens == declared, what)


@PROPERTIES.declare("scored positions", draws)
def scored(subject: Subject, case: Draw) -> None:
    """Every sample has a position that is scored, and a target that is not empty."""
    labels = drawn(subject.task, case).labels
    counts = (labels != IGNORE).sum(axis=1) - (subject.task.kind == "seq2seq")  # EOS
    empty = np.flatnonzero(counts < 1)
    expect(not len(empty), f"sample {empty[:1].sum()} has no position that is scored")


@PROPERTIES.declare("same when repeated", lambda subject: [*draws(subject), ELSEWHERE])
def same_address(subject: Subject, case: Draw | str) -> None:
    """A batch follows from its address alone, however often and after whatever it is drawn."""
    what = "the same address gives another batch when drawn again"
    if case == ELSEWHERE:  # where the first draws are those of `shapes`
        digests = _digests_elsewhere(subject)
        changed = [i for i, text in enumerate(digests) if text != digests[0]]
        expect(not changed, f"{what}, at repetition {sum(changed[:1])} of {REPEATS}")
        return
    first = drawn(subject.task, case)
    drawn(subject.task, case._replace(seed=case.seed + 17))
    again = drawn(subject.task, case)
    same = all(np.array_equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))
    expect(same, what)


@PROPERTIES.declare("same elsewhere", lambda subject: [ELSEWHERE])
def same_process(subject: Subject, _: str) -> None:
    """Another process draws the same samples."""
    elsewhere = _digests_elsewhere(subject)[-1]  # as often as `same when repeated` draws them here
    same = elsewhere == digest(subject.task, subject.few())
    expect(same, "it draws other samples from the same address")


def _digests_elsewhere(subject: Subject) -> list[str]:
    """`digest` in a new process, REPEATS times; Fails where the task cannot be made there."""
    program = (
        "import sys; from lcg.checks.tasks import digests_of_words; "
        "print(*digests_of_words(sys.argv[1].split(','), sys.argv[2:]))"
    )
    words = [",".join(map(str, subject.few())), *subject.words]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words], capture_output=True, text=True
    )
    lines = done.stderr.strip().splitlines()
    expect(done.returncode == 0, f"it cannot be made there: {lines[-1:] or done.returncode}")
    return done.stdout.split()


def digests_of_words(lengths: list[str], words: list[str]) -> list[str]:
    """`digest` of the task that words describe, REPEATS times."""
    task = load_task(words)
    return [digest(task, map(int, lengths)) for _ in range(REPEATS)]


def digest(task: Task, lengths: Iterable[int]) -> str:
    """Hex digits of what the task draws at some lengths."""
    whole = hashlib.blake2b(digest_size=8)
    for length in lengths:
        batch = drawn(task, Draw(length, 3, 0))
        whole.update(batch.inputs.tobytes() + batch.labels.tobytes())
    return whole.hexdigest()


@PROPERTIES.declare("evaluation", Subject.few)
def evaluation(subject: Subject, length: int) -> None:
    """Both evaluation splits draw the same samples in any batches."""
    task = subject.task
    for split in SPLITS:
        distinct = task.distinct_samples(split, length)
        fits = distinct is None or (isinstance(distinct, int | np.integer) and distinct >= 0)
        expect(fits, f"distinct_samples() returned {distinct!r}, expected a whole number or None")
        if distinct == 0:
            continue
        whole = EvalStream(task, 0, split, length).batch(0, 70)
        stream = EvalStream(task, 0, split, length)
        parts = [stream.batch(start, count) for start, count in ((0, 1), (1, 64), (65, 5))]
        rows = [row[row != task.pad] for part in parts for row in part.inputs]
        for row, expected in zip(rows, whole.inputs, strict=True):
            same = np.array_equal(row, expected[expected != task.pad])
            expect(same, f"the {split} split gives other samples in other batches")


@PROPERTIES.declare("own target")
def own_target(subject: Subject, _: None) -> None:
    """A target that follows from its source does so in any batch, and beside longer rows."""
    task, tried = subject.task, False
    for length in subject.few():
        alone = [_answers(task, [length] * ROWS, seed) for seed in range(4)]
        again = sum(map(len, alone)) - sum(len(dict(pairs)) for pairs in alone)
        if again < ENOUGH or any(len(dict(pairs)) < len(set(pairs)) for pairs in alone):
            continue  # too few to tell, or the target is drawn
        tried, target_of = True, dict(alone[0])
        longer = [other for other in subject.lengths() if length < other <= 64][-1:] or [length]
        beside = [_answers(task, [length, *longer] * (ROWS // 2), seed)[::2] for seed in range(4)]
        for what, batches in (("in another batch", alone[1:]), ("beside longer rows", beside)):
            pairs = [pair for pairs in batches for pair in pairs if pair[0] in target_of]
            other = [pair for pair in pairs if target_of[pair[0]] != pair[1]]
            if len(other) > 0.2 * len(pairs):  # fewer may be noise that the task draws
                source = f"{task.render(other[0][0])!r:.40}"
                expect(False, f"the source {source} of length {length} has another target {what}")
    if not tried:
        raise DoesNotApply("sources seldom come twice, or their targets are drawn")


def _answers(task: Task, lengths: list[int], seed: int) -> list[tuple[tuple, tuple]]:
    """Each row's own source and own target."""
    nominal = np.array(lengths)
    source, target = task.draw(train_rng(seed, 0), nominal)
    ends = task.target_length if task.kind == "seq2seq" else task.source_length
    counts = [
        task.count_symbols(source, task.source_length(nominal), nominal).ravel(),
        task.count_symbols(target, ends(nominal), nominal).ravel(),
    ]
    rows = zip(source.tolist(), target.tolist(), *counts, strict=True)
    return [(tuple(read[:n]), tuple(answer[:m])) for read, answer, n, m in rows]


@PROPERTIES.declare("symbols", lambda subject: range(min(subject.task.symbol_count, 512)))
def symbols(subject: Subject, symbol: int) -> None:
    """Every symbol prints as text without white space."""
    text = subject.task.symbol(symbol)
    fits = isinstance(text, str) and text and not any(map(str.isspace, text))
    expect(fits, f"symbol({symbol}) returned {text!r}, expected text without white space")


@PROPERTIES.declare("measure", lambda subject: draws(subject, seeds=1))
def measures(subject: Subject, case: Draw) -> None:
    """`measure` finds what `metrics` names."""
    task = subject.task
    if not task.metrics:
        raise DoesNotApply("metrics is empty")
    rows = [row[row != IGNORE] for row in drawn(task, case).labels]
    rows = [row[:-1] for row in rows] if task.kind == "seq2seq" else rows
    measured = task.measure(rows, rows)
    fits = set(measured) == set(task.metrics) and all(np.isfinite(list(measured.values())))
    expected = f"expected finite numbers for {', '.join(task.metrics)}"
    expect(fits, f"measure() returned {measured!r}, {expected}")


@PROPERTIES.declare("position ids", lambda subject: draws(subject, seeds=2))
def ids(subject: Subject, case: Draw) -> None:
    """`position_ids` follow from the tokens and the rng it is given, not from labels or padding."""
    task = subject.task
    if type(task).position_ids is Task.position_ids:
        raise DoesNotApply("position_ids() is not defined")
    batch = drawn(task, case)

    def numbers(of: Batch) -> np.ndarray:
        found = task.position_ids(of, np.random.default_rng(0), True)
        expect(found is not None, "position_ids() returned None")
        return np.asarray(found)

    first = numbers(batch)
    np.random.seed(1 + case.seed)  # of what a task should not draw from
    expect(np.array_equal(first, numbers(batch)), "position_ids() differ when asked again")
    blind = batch._replace(labels=np.where(batch.labels == IGNORE, IGNORE, 0))
    expect(np.array_equal(first, numbers(blind)), "position_ids() depend on the labels")
    room = ((0, 0), (0, 3))
    wider = batch._replace(
        inputs=np.pad(batch.inputs, room, constant_values=task.pad),
        labels=np.pad(batch.labels, room, constant_values=IGNORE),
    )
    real = np.broadcast_to(
        (batch.inputs != task.pad)[:, None] if first.ndim == 3 else batch.inputs != task.pad,
        first.shape,
    )
    same = np.array_equal(first[real], numbers(wider)[..., : first.shape[-1]][real])
    expect(same, "position_ids() depend on the padding")


@PROPERTIES.declare("evidence", lambda subject: draws(subject, seeds=2))
def evidence(subject: Subject, case: Draw) -> None:
    """`evidence` names, of every scored position, a token that was read by then, or none."""
    batch = drawn(subject.task, case)
    try:
        distance = subject.task.evidence_distance(batch)
    except ValueError as error:
        expect(False, str(error))
    if distance is None:
        raise DoesNotApply("evidence() is not stated")
    expect((distance >= 0).any(), "evidence() names no token at all")
