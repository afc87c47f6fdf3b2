"""Readers and writers of metrics.csv.

It is read row by row, because a long run has millions of rows.
"""

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from lcg.runs.files import check_held, naming, write_atomic

LONGEST = 2**20  # bytes of a line; no run logs more
DIGITS = 15  # of a step
LARGEST = 1e100  # beyond what float32 has; pictures of more overflow


class MetricsReader:
    """The complete rows of a metrics.csv; a later call reads the rows appended since.

    The last row of a killed run may be cut short, even inside a number, and a disk may lose others.
    Only rows that end with a line break, have every column and a step are complete. A file that is
    missing or cannot be read has no rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.end = 0  # of the last whole line that was read

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield step and cells, by column, of each row; `columns` is read before the first.

        Raises OSError when the disk fails.
        """
        if not self.path.is_file():
            return
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file:
            file.seek(self.end)
            for cells in self._lines(file):
                if not self.columns:
                    self.columns = cells
                elif len(cells) == len(self.columns):
                    row = dict(zip(self.columns, cells, strict=True))
                    step = row.get("step", "")
                    if step.isdecimal() and step.isascii() and len(step) <= DIGITS:
                        yield int(step), row

    def _lines(self, file: BinaryIO) -> Iterator[list[str]]:
        """Yield the cells of each complete line."""
        begins = True
        while line := file.readline(LONGEST):
            ends = line.endswith(b"\n")
            if ends:
                self.end = file.tell()
            elif len(line) < LONGEST:
                return
            if begins and ends:
                with suppress(csv.Error):
                    yield next(csv.reader([line.decode("utf-8", errors="replace")]), [])
            begins = ends


def number(text: str) -> float | None:
    """Return a number of at most LARGEST, or None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -LARGEST <= value <= LARGEST else None


Series = dict[str, tuple[list[int], list[float]]]
"""Columns by name: steps, ascending, and their values."""

EXACT = 4096  # points of a column up to which each is kept


def read_curves(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> Series:
    """Read the `wanted` columns that have numbers; of several at a step, the last.

    A column with more than `EXACT` numbers is averaged over stretches of equally many rows, to
    fewer than twice as many points.
    """
    reader = MetricsReader(path)
    curves: dict[str, _Curve] = defaultdict(_Curve)
    for step, row in reader.rows():
        for name, cell in row.items():
            if cell and name != "step" and wanted(name) and (value := number(cell)) is not None:
                curves[name].add(step, value)
    return {name: curves[name].points() for name in reader.columns if name in curves}


class _Curve:
    """A curve that is thinned while it grows: means of `size` points each, and the points since."""

    def __init__(self) -> None:
        self.size = 1
        self.means: list[tuple[float, float]] = []
        self.recent: list[tuple[float, float]] = []

    def add(self, step: int, value: float) -> None:
        self.recent.append((step, value))
        if len(self.recent) == self.size:
            self._gather()

    def _gather(self) -> None:
        """Append the mean of the points since; double the points per mean when there are many."""
        self.means.append(_mean(self.recent))
        self.recent = []
        if len(self.means) == EXACT:
            self.size *= 2
            self.means = list(map(_mean, zip(self.means[::2], self.means[1::2], strict=True)))

    def points(self) -> tuple[list[int], list[float]]:
        """Return steps, ascending, and values; of several at a step, the last."""
        if self.recent:
            self._gather()
        points = sorted({round(step): value for step, value in self.means}.items())
        return [step for step, _ in points], [value for _, value in points]


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(sum(numbers) / len(numbers) for numbers in zip(*points, strict=True))


class Tracking:
    """Logs every row to all destinations; only the main process has any."""

    def __init__(self) -> None:
        self.places: list[Any] = []  # CSVMetrics, WandbMetrics

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Log the metrics of a step; several rows may have the same step."""
        for place in self.places:
            place.log(step, metrics)

    def summarize(self, values: dict[str, Any]) -> None:
        """Log the run's summary, at its end."""
        for place in self.places:
            place.summarize(values)

    def close(self, exit_code: int) -> None:
        """Close all destinations; code: the exit code of the process."""
        for place in self.places:
            place.close(exit_code)
        self.places = []


class CSVMetrics:
    """One row per call, with fixed columns, appended during training.

    Resuming drops the rows of steps that are repeated, and keeps columns that are no longer logged.
    """

    def __init__(self, path: Path, columns: list[str], resume_step: int) -> None:
        before = MetricsReader(path)
        # From step 0 all is written again, the row of step 0 too.
        rows = (row for step, row in before.rows() if resume_step and step <= resume_step)
        first = list(itertools.islice(rows, 1))
        kept = before.columns if first else []
        self.path, self.columns = path, list(dict.fromkeys(["step", *columns, *kept]))
        header = dict(zip(self.columns, self.columns, strict=True))
        write_atomic(path, map(self._line, itertools.chain([header], first, rows)))
        self._file = path.open("ab", buffering=0)

    def _line(self, row: dict[str, Any]) -> str:
        text = io.StringIO()
        form = {"restval": "", "extrasaction": "ignore", "lineterminator": "\n"}
        csv.DictWriter(text, self.columns, **form).writerow(row)
        return text.getvalue()

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one row; if the disk has no room for it, remove what was written of it."""
        rest = memoryview(self._line({"step": step} | metrics).encode())
        end = self._file.tell()
        check_held(self.path)
        with naming(self.path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(end)
                raise

    def summarize(self, values: dict[str, Any]) -> None:
        """Do nothing: the summary is in results.json."""

    def close(self, exit_code: int = 0) -> None:
        """Do nothing: a row that could not be written has raised already."""
        with suppress(OSError):
            self._file.close()
