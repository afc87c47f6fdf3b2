"""What `lcg inspect` prints of the head analyses: a row per head, the runs beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from lcg.diagnostics.errors import BARS
from lcg.diagnostics.heads import LayerHeads, most_diverse
from lcg.diagnostics.tables import legend_text
from lcg.diagnostics.trajectories import Trajectory

LARGEST = "max w/Σw"
LEGEND = {
    "density": "share of the visible keys with a weight above 0, mean over queries",
    "strongest": "where most queries have their strongest key (key less query), and their share",
    LARGEST: "mean of the rows' largest weight by the row's sum: max w where rows sum to 1",
    "null": "share of queries at which the head has no weight at all",
    "alpha": "learned α of the head: 1 is softmax, 2 sparsemax",
    "diversity": "Jensen–Shannon divergence of the heads, nats: 0 all alike, log H none alike",
}
SILENT = """\
Heads without any weight at a query are left out of max w/Σw and diversity there: up to {:.1f} % \
of a layer's rows."""
BINS = 20

Text = Callable[[LayerHeads, int], str]
Column = tuple[str, list["Analysed"], Text]


@dataclass(frozen=True)
class Analysed:
    """The analysis of one run, or of one normalizer on a run's scores.

    label: a letter. name: of the run, empty for a normalizer. attention: the label of the run among
    those shown, or the normalizer. trajectories: of learned α by kind.
    """

    label: str
    name: str
    attention: str
    layers: list[LayerHeads] = field(repr=False)
    trajectories: dict[str, list[Trajectory]] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """What the label stands for, in a line."""
        return f"{self.label}  {': '.join(filter(None, (self.name, self.attention)))}"

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
    silent = max(layer.left_out for run in runs for layer in run.layers)
    columns = _columns(runs)
    legend = legend_text(LEGEND, [*(title for title, _, _ in columns), "diversity"])
    parts = [
        "\n".join(run.key for run in runs),
        _heads_table(runs, names, columns),
        _layers_table(runs, names),
        legend + (f"\n{SILENT.format(100 * silent)}" if silent > 0 else ""),
        "\n".join(alpha_lines(runs)),
    ]
    return "\n\n".join(filter(None, parts))


def alpha_lines(runs: list[Analysed]) -> list[str]:
    """A line per run that learns α and attention kind: range, median and histogram from 1 to 2."""
    lines = []
    for run in runs:
        for kind, values in run.alphas().items():
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


def _columns(runs: list[Analysed]) -> list[Column]:
    """Columns of the heads, each with the runs that it says something of."""
    columns: list[Column] = [
        ("density", runs, lambda layer, head: _number(layer.density[head])),
        ("strongest", runs, lambda layer, head: _offset(*layer.best_offset(head))),
        (LARGEST, runs, lambda layer, head: _number(layer.confidence[head])),
    ]
    silent = [run for run in runs if any(any(layer.null) for layer in run.layers)]
    if silent:
        columns.append(("null", silent, lambda layer, head: _number(layer.null[head])))
    learned = [run for run in runs if run.alphas()]
    if learned:
        columns.append(("alpha", learned, lambda layer, head: _number(layer.alpha[head])))
    return columns


def _heads_table(runs: list[Analysed], names: dict[str, str], columns: list[Column]) -> str:
    heads: dict[str, int] = {}
    for run in runs:
        for layer in run.layers:
            heads[layer.name] = max(heads.get(layer.name, 0), len(layer.density))
    rows = [(name, str(head)) for name in names for head in range(heads[name])]
    groups = [
        Group(title, [(run.label, [_cell(run, *row, text) for row in rows]) for run in own])
        for title, own, text in columns
    ]
    return _aligned(["layer", "head"], rows, groups, len(runs) > 1)


def _layers_table(runs: list[Analysed], names: dict[str, str]) -> str:
    rows = list(names.items())
    measures = {
        "diversity": lambda layer: _number(layer.diversity),
        "of log H": _share,
        "mean density": lambda layer: _number(sum(layer.density) / len(layer.density)),
    }
    groups = []
    for title, text in measures.items():
        cells = [
            (run.label, [text(layer) if (layer := run.layer(name)) else "–" for name in names])
            for run in runs
        ]
        groups.append(Group(title, cells))
    return _aligned(["layer", "kind"], rows, groups, len(runs) > 1)


class Group(NamedTuple):
    """Columns under one title: of each run its label and its cells."""

    title: str
    columns: list[tuple[str, list[str]]]


def _aligned(
    keys: list[str], rows: list[tuple[str, ...]], groups: list[Group], labelled: bool
) -> str:
    """Keys, then the groups, under a line of titles and, with `labelled`, a line of labels."""
    left = [[key, *column] for key, column in zip(keys, zip(*rows, strict=True), strict=True)]
    lines = ["  ".join(cells) for cells in zip(*map(_justified, left), strict=True)]
    head = [" " * len(lines[0])] * labelled
    lines = [*head, *lines]
    for title, columns in groups:
        cells = [[label, *own] if labelled else own for label, own in columns]
        joined = ["  ".join(cells) for cells in zip(*map(_justified, cells), strict=True)]
        block = _justified([title.center(len(joined[0])), *joined])
        lines = [f"{line}   {cell}" for line, cell in zip(lines, block, strict=True)]
    return "\n".join(line.rstrip() for line in lines)


def _justified(cells: list[str]) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def _cell(run: Analysed, name: str, head: str, text: Text) -> str:
    layer = run.layer(name)
    return "–" if layer is None or int(head) >= len(layer.density) else text(layer, int(head))


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _share(layer: LayerHeads) -> str:
    if math.isnan(layer.diversity):
        return "–"
    return f"{100 * layer.diversity / most_diverse(layer):.0f} %"


def _offset(step: int, share: float) -> str:
    return f"{step:+d} {100 * share:3.0f} %".replace("+0", " 0") if share else "–"
