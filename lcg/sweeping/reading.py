"""From the name of a sweep file to a sweep of which every run is possible."""

from __future__ import annotations

from pathlib import Path

from lcg.config.errors import ConfigError, one_line
from lcg.config.words import read_words
from lcg.sweeping.combinations import check_runs
from lcg.sweeping.file import Sweep, find_sweep, parse
from lcg.training.directory import check_folder


def read_sweep(path: str | Path, overrides: list[str] | None = None) -> Sweep:
    """A sweep file with `key=value` overrides laid over every run of it.

    An override of something that is varied fixes it. Raises ConfigError, in one line, for a file
    that is not a sweep, a metric that is no column of the runs, or runs that are not possible.
    """
    file = find_sweep(str(path))
    said = read_words(overrides or [])
    try:
        sweep = parse(file, said)
        check_runs(sweep)
        check_folder(f"runs={sweep.runs}", sweep.runs)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error.__cause__
    except ValueError as error:
        raise ConfigError(f"{file}: {one_line(error)}") from None
    return sweep
