"""Where metrics go: metrics.csv always, and whatever else is listening."""

from __future__ import annotations

import csv
import io
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lcg.config import Config
from lcg.diagnostics.headers import alpha_columns, gradient_columns, probe_columns
from lcg.results.atomic import check_held, naming, write_atomic
from lcg.results.metrics import MetricsReader


class Place(Protocol):
    """Something that takes metrics."""

    def log(self, step: int, metrics: dict[str, Any]) -> None: ...

    def summarize(self, values: dict[str, Any]) -> None: ...

    def close(self, exit_code: int) -> None: ...


class Tracking:
    """Hands every row to all places; has none in the processes that keep no books."""

    def __init__(self) -> None:
        self.places: list[Place] = []

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Metrics of a step; several rows may have the same step."""
        for place in self.places:
            place.log(step, metrics)

    def summarize(self, values: dict[str, Any]) -> None:
        """What the run amounts to, at its end."""
        for place in self.places:
            place.summarize(values)

    def close(self, exit_code: int) -> None:
        """Nothing follows; the code is the one that the process will end with."""
        for place in self.places:
            place.close(exit_code)
        self.places = []


def columns(config: Config) -> list[str]:
    """The metrics that a run writes, in the order of metrics.csv."""
    names = ("loss", "lr", "grad_norm", "tokens_per_second", "steps_per_second", "seconds")
    train = [f"train/{name}" for name in names]
    kinds = ("exact_match", "token_accuracy")
    val = [f"val/len_{n}/{kind}" for n in config.validation.lengths for kind in kinds]
    heads = alpha_columns(config) + probe_columns(config)
    return train + val + gradient_columns(config) + heads


class CSVMetrics:
    """One row per call, columns fixed at the start, appended to as training goes.

    Resuming drops the rows of steps that are done again, and keeps columns that are asked for no
    more.
    """

    def __init__(self, path: Path, columns: list[str], resume_step: int) -> None:
        before = MetricsReader(path)
        # From step 0 all is written again, the row of step 0 too.
        rows = (cells for step, cells in before.rows() if resume_step and step <= resume_step)
        first = list(itertools.islice(rows, 1))
        kept = before.columns if first else []
        self.path, self.columns = path, list(dict.fromkeys(["step", *columns, *kept]))
        form = {"restval": "", "extrasaction": "ignore", "lineterminator": "\n"}
        self._text = io.StringIO()
        self._writer = csv.DictWriter(self._text, self.columns, **form)
        self._writer.writeheader()
        header = self._written()
        old = (dict(zip(kept, cells, strict=True)) for cells in itertools.chain(first, rows))
        write_atomic(path, itertools.chain([header], map(self._as_text, old)))
        self._file = path.open("ab", buffering=0)

    def _as_text(self, row: dict[str, Any]) -> str:
        self._writer.writerow(row)
        return self._written()

    def _written(self) -> str:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one row; of one that the disk has no room for, nothing is left."""
        rest = memoryview(self._as_text({"step": step} | metrics).encode())
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
        """Not here: a summary is in results.json."""

    def close(self, exit_code: int = 0) -> None:
        """A row that could not be written has raised already."""
        with suppress(OSError):
            self._file.close()
