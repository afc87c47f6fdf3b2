"""The runs of a grid, and whether all of them are possible.

An impossible pair must be excluded in the file: W&B's agent gives up after a few runs that fail at
once, and a table with holes misleads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

from lcg.config import Config, ConfigError, load_config, run_directory
from lcg.config.errors import one_line
from lcg.config.load import read_overrides
from lcg.config.schema import COUNT, shown
from lcg.diagnostics.columns import columns
from lcg.registry import nearest
from lcg.runs.run import check_folder
from lcg.sweeping.file import Sweep, find_sweep, parse
from lcg.sweeping.parameters import Choice

MOST_RUNS = 10_000  # of a grid
MOST_CHECKED = 2000  # combinations of a sweep that draws; checking one takes milliseconds


def check_count(sweep: Sweep) -> None:
    """Raise ConfigError for a grid of more runs than anybody trains, before any is listed."""
    sizes = (len(p.texts) for p in sweep.parameters.values() if isinstance(p, Choice))
    count = min(math.prod(sizes), sweep.run_cap or COUNT**2)
    if sweep.method == "grid" and count > MOST_RUNS:
        raise ConfigError(
            f"the grid has {shown(count)} runs; at most {shown(MOST_RUNS)} are possible, so vary "
            "less or set run_cap"
        )


def combinations(sweep: Sweep) -> list[dict[str, str]]:
    """What each run of a grid chooses, first parameter slowest, at most `run_cap` of them."""
    return list(itertools.islice(_choices(sweep), sweep.run_cap))


def _choices(sweep: Sweep) -> Iterator[dict[str, str]]:
    """Every combination; a range is stood for by its lower end."""
    options = [
        parameter.texts if isinstance(parameter, Choice) else (parameter.first,)
        for parameter in sweep.parameters.values()
    ]
    for texts in itertools.product(*options):
        yield dict(zip(sweep.parameters, texts, strict=True))


def configs(sweep: Sweep) -> list[list[str]]:
    """The overrides of every run of a grid, first parameter slowest."""
    return [sweep.words(chosen) for chosen in combinations(sweep)]


def check_runs(sweep: Sweep) -> None:
    """Raise ConfigError for runs that are not possible, or that would share a directory."""
    check_count(sweep)
    grid = sweep.method == "grid"
    runs = combinations(sweep) if grid else itertools.islice(_choices(sweep), MOST_CHECKED)
    places: dict[str, dict[str, str]] = {}
    impossible: dict[str, list[str]] = {}
    for chosen in runs:
        named = " ".join(f"{key}={text}" for key, text in chosen.items()) or "the one run"
        try:
            config = load_config(sweep.words(chosen))
        except ConfigError as error:
            impossible.setdefault(str(error), []).append(named)
            continue
        _check_metric(sweep, config)
        other = places.setdefault(str(run_directory(config)), chosen)
        if other is not chosen:
            differ = [
                f"{key}={other[key]} and {chosen[key]}"
                for key in chosen
                if chosen[key] != other[key]
            ]
            raise ConfigError(
                f"two runs would share the directory {run_directory(config)}: they differ only in "
                f"{', '.join(differ)}"
            )
    for reason, which in impossible.items():
        more = f" (and {len(which) - 1} more)" if len(which) > 1 else ""
        everywhere = not places and len(impossible) == 1
        where = "" if everywhere else f"{which[0]}{more} is not possible: "
        advice = "" if everywhere else "; leave it out of the file"
        raise ConfigError(f"{where}{reason}{advice}")


def _check_metric(sweep: Sweep, config: Config) -> None:
    if sweep.metric is None:
        return
    known = columns(config)
    if sweep.metric.name not in known:
        raise ConfigError(
            f"metric.name={sweep.metric.name} is no column of metrics.csv; "
            f"{nearest(sweep.metric.name, known)}"
        )


def read_sweep(path: str | Path, overrides: list[str] | None = None) -> Sweep:
    """A sweep file with `key=value` overrides laid over every run of it.

    An override of something that is varied fixes it. Raises ConfigError, in one line, for a file
    that is not a sweep, a metric that is no column of the runs, or runs that are not possible.
    """
    file = find_sweep(str(path))
    said = read_overrides(overrides or [])
    try:
        sweep = parse(file, said)
        check_runs(sweep)
        check_folder(f"runs={sweep.runs}", sweep.runs)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error.__cause__
    except ValueError as error:
        raise ConfigError(f"{file}: {one_line(error)}") from None
    return sweep
