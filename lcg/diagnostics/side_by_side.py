"""What `lcg inspect` prints of the head analyses: a row per head, the runs beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from lcg.diagnostics.analysis import LayerHeads, most_diverse
from lcg.diagnostics.failures import BARS
from lcg.diagnostics.trajectories import Trajectory

LEGEND = """\
density     share of the visible keys with a weight above 0, mean over queries
strongest   where most queries have their strongest key (key less query), and their share
conf        mean of the rows' largest p = w/Σw
null        share of queries at which the head has no weight at all
diversity   Jensen–Shannon divergence of the layer's heads, nats: 0 all alike, log H none alike"""
SILENT = """\
Heads without any weight at a query are left out of conf and diversity there: up to {:.1f} % of a \
layer's rows."""
BINS = 20

Text = Callable[[LayerHeads, int], str]


@dataclass(frozen=True)
class Analysed:
    """The analysis of one run, or of one normalizer on a run's scores.

    label: a letter. attention: how its attention is called. trajectories: of learned α by kind.
    """

    label: str
    name: str
    attention: str
    layers: list[LayerHeads] = field(repr=False)
    trajectories: dict[str, list[Trajectory]] = field(default_factory=dict, repr=False)

    def layer(self, name: str) -> LayerHeads | None:
        return next((layer for layer in self.layers if layer.name == name), None)

    def alphas(self) -> dict[str, list[float]]:
        """Attention kind -> α of all its heads where it is learned."""
        found: dict[str, list[float]] = {}
        for layer in self.layers:
            if layer.alpha is not None:
                found.setdefault(layer.kind, []).extend(layer.alpha)
        return found


def analyses_text(runs: list[Analysed]) -> str:
    """Per head, per layer, and the learned α; the first run's layers come first."""
    names = {layer.name: layer.kind for run in runs for layer in run.layers}
    keys = [f"{run.label}  {run.name}: {run.attention}" for run in runs]
    silent = max((layer.left_out for run in runs for layer in run.layers), default=0.0)
    legend = LEGEND + (f"\n{SILENT.format(100 * silent)}" if silent > 0 else "")
    parts = [
        "\n".join(keys),
        _aligned(_head_rows(runs, names)),
        _aligned(_layer_rows(runs, names)),
        legend,
        "\n".join(alpha_lines(runs)),
    ]
    return "\n\n".join(parts)


def alpha_lines(runs: list[Analysed]) -> list[str]:
    """A line per run and attention kind: range, median and histogram of learned α from 1 to 2."""
    lines = []
    for run in runs:
        alphas = run.alphas()
        if not alphas:
            lines.append(f"{run.label}  α is not learned by {run.attention}: no histogram of it")
        for kind, values in alphas.items():
            lines.append(
                f"{run.label}  α of {len(values)} {kind} heads: {min(values):.3f} to "
                f"{max(values):.3f}, median {median(values):.3f}, 1|{_bars(values)}|2"
            )
    return lines


def _bars(values: list[float]) -> str:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - 1) * BINS))] += 1
    top = max(counts)
    return "".join(" " if c == 0 else BARS[-(-c * len(BARS) // top) - 1] for c in counts)


def _head_rows(runs: list[Analysed], names: dict[str, str]) -> list[list[str]]:
    columns: list[tuple[str, Text]] = [
        ("density", lambda layer, head: _number(layer.density[head])),
        ("strongest", lambda layer, head: _offset(*layer.best_offset(head))),
        ("conf", lambda layer, head: _number(layer.confidence[head])),
    ]
    layers = [layer for run in runs for layer in run.layers]
    if any(any(layer.null) for layer in layers):
        columns.append(("null", lambda layer, head: _number(layer.null[head])))
    if any(layer.alpha for layer in layers):
        columns.append(("alpha", lambda layer, head: _number(layer.alpha and layer.alpha[head])))
    shown = [(run, name, text) for name, text in columns for run in runs]
    head_row = ["layer", "head", *(_titled(name, run, runs) for run, name, _ in shown)]
    rows = [head_row]
    for name in names:
        own = [run.layer(name) for run in runs]
        for head in range(max(len(layer.density) for layer in own if layer)):
            rows.append(
                [name, str(head), *(_cell(run, name, head, text) for run, _, text in shown)]
            )
    return rows


def _layer_rows(runs: list[Analysed], names: dict[str, str]) -> list[list[str]]:
    measures = {
        "diversity": lambda layer: _number(layer.diversity),
        "log H": lambda layer: _number(most_diverse(layer)),
        "mean density": lambda layer: _number(sum(layer.density) / len(layer.density)),
    }
    titles = [_titled(measure, run, runs) for measure in measures for run in runs]
    rows = [["layer", "kind", *titles]]
    for name, kind in names.items():
        own = [run.layer(name) for run in runs]
        cells = [text(layer) if layer else "–" for text in measures.values() for layer in own]
        rows.append([name, kind, *cells])
    return rows


def _titled(name: str, run: Analysed, runs: list[Analysed]) -> str:
    return f"{name} {run.label}" if len(runs) > 1 else name


def _cell(run: Analysed, name: str, head: int, text: Text) -> str:
    layer = run.layer(name)
    return "–" if layer is None or head >= len(layer.density) else text(layer, head)


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _offset(step: int, share: float) -> str:
    return f"{step:+d} {100 * share:3.0f} %" if share else "–"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)
