"""Published numbers, beside ours: the rows of a paper's table, and a verdict for every cell.

The numbers are in published.yaml, each row with its source, version and who transcribed it, and
with the cells that transcribers contradict each other on.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lcg.results.aggregate import Group, RunResult
from lcg.results.selection import choose
from lcg.results.statistics import wilson
from lcg.runs.presets import changed, named
from lcg.runs.record import RunRecord

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a published table.

    values: multiple of the longest training length -> fraction in [0, 1]; empty: not found.
    suspect: multiple -> why its value is doubted.
    """

    method: str
    title: str
    version: str = ""
    transcriber: str
    values: dict[float, float]
    suspect: dict[float, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Title and version."""
        return f"{self.title} ({self.version})" if self.version else self.title


@dataclass(frozen=True)
class Block:
    """One task of a published table, and the setting in which it was measured.

    options: the task's. steps, batch_size, parameters (fewest and most): of the authors'
    configuration, as the paper and as their repository have it. samples: behind each proportion.
    runs: how many runs that learned the training lengths a value is the mean of, over all lengths
    above the multiple before it; None: it is of one selected run at one length.
    """

    name: str
    source: str
    samples: int
    position: str
    task: str
    options: dict[str, Any]
    train_lengths: tuple[int, int]
    steps: int
    batch_size: int
    parameters: tuple[int, int]
    multiples: tuple[float, ...]
    rows: tuple[Row, ...]
    runs: int | None = None

    def fits(self, record: RunRecord) -> bool:
        """Tell whether task and options, training lengths and position encoding are the same."""
        return (
            record.labels["task"] == self.task
            and record.labels["position"] == self.position
            and (record.train_min, record.train_max) == self.train_lengths
            and all(record.task.get(key, value) == value for key, value in self.options.items())
        )

    def deviations(self, record: RunRecord) -> list[str]:
        """Name what differs from the authors' model and budget, as a verdict must."""
        steps, batch, parameters = map(record.settings.get, ("steps", "batch_size", "parameters"))
        (low, high), deviations = self.parameters, []
        if steps not in (None, self.steps):
            deviations.append(f"{steps} training steps, the authors {self.steps}")
        if batch not in (None, self.batch_size):
            deviations.append(f"batches of {batch}, the authors {self.batch_size}")
        if parameters is not None and not low <= parameters <= high:
            deviations.append(f"{parameters:,} parameters, the authors {low:,} to {high:,}")
        return deviations


@dataclass(frozen=True)
class Verdict:
    """A published cell and ours: correct of samples, and the 95 % Wilson interval.

    method: the attention's label; title: the row's name in the paper, with its version. published,
    interval: fractions. verdict: agrees, differs or not run.
    """

    method: str
    title: str
    length: int
    published: float
    correct: int | None
    samples: int | None
    interval: tuple[float, float] | None
    verdict: str
    note: str = ""


@cache
def blocks() -> dict[str, Block]:
    """All published blocks by name: table1/sort, …"""
    import yaml

    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    common = {key: data[key] for key in ("source", "samples", "position")}
    by_name = {}
    for name, content in data["blocks"].items():
        pairs = {key: tuple(content[key]) for key in ("train_lengths", "parameters", "multiples")}
        rows = (_row(pairs["multiples"], data["transcribers"], **row) for row in content["rows"])
        by_name[name] = Block(name=name, **(common | content | pairs | {"rows": tuple(rows)}))
    return by_name


def _row(multiples: tuple[float, ...], transcribers: dict[str, str], **row: Any) -> Row:
    pairs = zip(multiples, row.pop("values") or [None] * len(multiples), strict=True)
    values = {multiple: value / 100 for multiple, value in pairs if value is not None}
    names = [transcribers[key] for key in row.pop("by", "").split(", ") if key]
    return Row(**row, transcriber="; ".join(names), values=values)


def published_beside(groups: Iterable[Group], forced: bool = False) -> dict[str, Block]:
    """Task -> the block under its runs, where a selected run fits it or it is forced."""
    single = [block for block in blocks().values() if block.runs is None]
    of_task = {block.task: block for block in reversed(single)}
    pairs = [(of_task[group.task], group) for group in groups if group.task in of_task]
    return {b.task: b for b, group in pairs if forced or b.fits(group.best.record)}


def verdicts(records: Iterable[RunRecord], block: str = "table1/sort") -> list[Verdict]:
    """One verdict for every published cell of a block, in the order of its rows.

    Ours is the run that validation selects among all that fit the block (`Block.fits`) and have the
    row's attention. The published value is a proportion of the block's samples. The two agree if
    and only if our Wilson interval and the published value's overlap: not overlapping is stronger
    than a test at 5 % (of the order of 0.6 % for like sample sizes), so what differs does so beyond
    the chance of test samples; whether other training seeds would is not asked. A mean over runs
    agrees if it lies where the mean of as many other runs of ours would, see `_mean_verdict`.
    Raises ValueError for a block that does not exist.
    """
    if block not in blocks():
        raise ValueError(f"there is no published block {block}; choose from {', '.join(blocks())}")
    chosen = blocks()[block]
    fitting = [one for record in records if chosen.fits(record) for one in named([record])]
    verdicts_so_far = []
    for row in chosen.rows:
        own = [r for r in fitting if r.labels["attention"] == row.method and not changed(r)]
        if chosen.runs is not None:
            judge = partial(_mean_verdict, own=own)
        else:
            judge = partial(_verdict, run=RunResult(choose(own).record) if own else None)
        verdicts_so_far += [judge(chosen, row, multiple) for multiple in row.values]
    return verdicts_so_far


def _verdict(block: Block, row: Row, multiple: float, run: RunResult | None) -> Verdict:
    length, published = round(multiple * block.train_lengths[1]), row.values[multiple]
    notes = [f"suspect: {row.suspect[multiple]}"] if multiple in row.suspect else []
    cell = run.cells.get(length) if run else None
    if cell is None or cell.state != "value":
        missing = "not evaluated" if run else f"no run of {row.method} in this setting"
        notes.insert(0, cell.state.replace("_", " ") if cell else missing)
        ours, verdict = (None, None, None), "not run"
    else:
        notes += [] if run.trained is not False else ["our run did not train"]
        notes += block.deviations(run.record)
        interval = wilson(cell.correct, cell.samples)
        low, high = wilson(round(published * block.samples), block.samples)
        ours = (cell.correct, cell.samples, interval)
        verdict = "agrees" if interval[0] <= high and low <= interval[1] else "differs"
    return Verdict(row.method, row.name, length, published, *ours, verdict, "; ".join(notes))


T_QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Number of runs -> the 97.5 % quantile of Student's t with one degree of freedom less."""


def _mean_verdict(block: Block, row: Row, multiple: float, own: list[RunRecord]) -> Verdict:
    """A published mean over runs that learned the training lengths, beside that of our first ones.

    Our interval is where the mean of as many other runs would lie with 95 %, mean ± t·s·√(2/n),
    widened to the Wilson interval of all samples together; it agrees with a published mean whose
    own Wilson interval it overlaps.
    """
    end = block.train_lengths[1]
    index = block.multiples.index(multiple)
    low = round((block.multiples[index - 1] if index else 1) * end)
    high = round(multiple * end)
    learned = [r for r in own if r.selection is not None and r.selection.value == 1]
    learned.sort(key=lambda record: record.seed)
    cells = [
        [c for n, c in RunResult(r).cells.items() if low < n <= high and c.state == "value"]
        for r in learned[: block.runs]
    ]
    counts = [(sum(c.correct for c in run), sum(c.samples for c in run)) for run in cells if run]
    notes = [f"{len(learned)} of {len(own)} runs learned lengths up to {end}"]
    values = row.method, row.name, high, row.values[multiple]
    if len(counts) < block.runs:
        notes.insert(0, f"{block.runs} that did are needed, {len(counts)} are there")
        return Verdict(*values, None, None, None, "not run", "; ".join(notes))
    notes += block.deviations(learned[0])
    correct, samples = (sum(column) for column in zip(*counts, strict=True))
    shares = [right / of for right, of in counts]
    half = T_QUANTILES[block.runs] * stdev(shares) * math.sqrt(2 / block.runs)
    wide = wilson(correct, samples)
    middle = fmean(shares)
    interval = max(0.0, min(wide[0], middle - half)), min(1.0, max(wide[1], middle + half))
    of = block.runs * block.samples
    theirs = wilson(round(row.values[multiple] * of), of)
    verdict = "agrees" if interval[0] <= theirs[1] and theirs[0] <= interval[1] else "differs"
    return Verdict(*values, correct, samples, interval, verdict, "; ".join(notes))
