"""Shared by the benchmarks: functions timed in turn, the machine, a table and a JSON file.

Every figure is a ratio of times taken in one process, round by round, and the median of rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def time_in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function, one call of each per round, after one untimed round."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median over rounds of one time by another of the same round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def positive(word: str) -> int:
    """A number of the command line, from 1 on."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive number")
    return int(word)


def machine() -> dict[str, Any]:
    """Processor, cores, threads and versions; load, the processes that ran in the last minute."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def publish(
    name: str,
    title: str,
    header: list[str],
    rows: list[list[str]],
    data: Any,
    said: bool = True,
) -> None:
    """Print a markdown table with the machine, and write both forms to benchmarks/results.

    said=False: written only, as for a table that is not complete.
    """
    here = machine()
    place = (
        f"{here['cpu']}, {here['cores']} cores, {here['threads']} threads, "
        f"torch {here['torch']}, Python {here['python']}, load {here['load']}, {here['date']}"
    )
    lines = [f"# {title}", "", place, "", "| " + " | ".join(header) + " |"]
    lines.append("|---" + "|---:" * (len(header) - 1) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    if said:
        print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": here, **data}, indent=1) + "\n")
