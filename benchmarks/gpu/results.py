"""The rows of a section, printed and kept as they come."""

from __future__ import annotations

import importlib.metadata
import statistics
from typing import Any

import torch

from benchmarks.gpu.plan import Plan
from benchmarks.report import publish

HEADER = ["case", "triton", "peer", "of the peer", "times faster", "goal"]


class Results:
    """The rows of a section: each is printed, and what there is so far is kept."""

    def __init__(self, section: str, plan: Plan) -> None:
        self.section, self.kept = section, plan.device == "cuda"
        self.rows: list[list[str]] = []
        self.data: dict[str, Any] = {"versions": versions()}
        if self.kept:
            self.data["device"] = torch.cuda.get_device_name()

    def add(self, name: str, row: list[str], data: dict[str, Any]) -> None:
        """A row of HEADER but for its first column, and what it was made of."""
        if not self.rows:
            print(" | ".join(HEADER))
        self.rows.append([name, *row])
        self.data.setdefault(name, {}).update(data)
        print(" | ".join(self.rows[-1]), flush=True)
        if self.kept:
            title = f"{self.section}: the triton backend on {self.data['device']}"
            publish(f"gpu_{self.section}", title, HEADER, self.rows, self.data, said=False)


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that are compared."""
    found = {}
    for name in ("torch", "triton", "adasplash"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def milliseconds(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.3f} ms"
