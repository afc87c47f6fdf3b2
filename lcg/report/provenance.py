"""Where the numbers of a page come from: runs, code, versions, dates, commands."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcg.report.sources import Sources
from lcg.report.tags import Markup, tag
from lcg.results.aggregate import Group, Run
from lcg.runs.run import Run as RunDirectory

SHOWN_PACKAGES = ("lcg", "torch", "lightning", "wandb")


def section(groups: list[Group], sources: Sources, command: str, made: datetime) -> Markup:
    """The last part of a page. `made` is the only thing in a page that is not in its input."""
    heads = ["run", "hash", "group", "state", "steps", "seconds", "device", "code", "git commit"]
    heads += ["versions", "last step written (UTC)"]
    rows = [
        tag("tr", *(tag("td", text) for text in _row(run, sources.directory(run.record))))
        for group in groups
        for run in group.runs
    ]
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    count = sum(len(group.runs) for group in groups)
    return tag(
        "section",
        tag("h2", "Provenance"),
        tag("p", "Made by ", tag("code", command), f" on {made:%Y-%m-%d %H:%M} UTC", _with(), "."),
        tag(
            "details",
            tag("summary", f"All {count} runs: hashes, code, versions, dates"),
            tag("div", table, class_="scroll", tabindex="0"),
        ),
        id="provenance",
        class_="provenance",
    )


def _with() -> str:
    from lcg import __version__

    return f" with lcg {__version__}, Python {platform.python_version()}"


def _row(run: Run, directory: Path) -> list[str]:
    record, found = run.record, RunDirectory(directory).provenance
    training = record.training
    return [
        record.run,
        record.hash,
        record.group,
        training.status.replace("_", " "),
        str(training.step),
        f"{training.seconds:.0f}",
        str(found.get("device_name") or training.device or "—"),
        str(found.get("code") or "—"),
        _commit(found.get("git")),
        _versions(found.get("packages")),
        _written(directory),
    ]


def _commit(git: Any) -> str:
    """The commit's first digits, and whether files differed from it."""
    if not isinstance(git, dict) or not git.get("commit"):
        return "—"
    return f"{str(git['commit'])[:12]}{', changed files' if git.get('dirty') else ''}"


def _versions(packages: Any) -> str:
    if not isinstance(packages, dict):
        return "—"
    return ", ".join(f"{name} {packages[name]}" for name in SHOWN_PACKAGES if name in packages)


def _written(directory: Path) -> str:
    """When metrics.csv was last written: the date of training, unless files were copied since."""
    try:
        stamp = RunDirectory(directory).metrics_file.stat().st_mtime
    except OSError:
        return "—"
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M}"
