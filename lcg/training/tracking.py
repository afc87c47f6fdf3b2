"""Where metrics go: metrics.csv always, and whatever else is listening."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lcg.config import Config
from lcg.diagnostics.headers import alpha_columns, gradient_columns, probe_columns
from lcg.results.atomic import naming, write_atomic
from lcg.results.metrics import read_rows


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
        old_columns, rows = read_rows(path)
        # From step 0 all is written again, the row of step 0 too.
        rows = [row for row in rows if resume_step and int(row["step"]) <= resume_step]
        kept = old_columns if rows else []
        self.columns = list(dict.fromkeys(["step", *columns, *kept]))
        text = io.StringIO()
        form = {"restval": "", "extrasaction": "ignore", "lineterminator": "\n"}
        writer = csv.DictWriter(text, self.columns, **form)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, text.getvalue())
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._row = io.StringIO()
        self._writer = csv.DictWriter(self._row, self.columns, **form)

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one row; of one that the disk has no room for, nothing is left."""
        self._writer.writerow({"step": step} | metrics)
        rest = memoryview(self._row.getvalue().encode())
        self._row.seek(0)
        self._row.truncate()
        end = self._file.tell()
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
