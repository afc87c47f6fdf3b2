"""Print the heads of runs: a table of heads, one of layers, the runs in columns, and legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from lcg.diagnostics.columns import QUANTILES
from lcg.diagnostics.errors import BARS
from lcg.diagnostics.heads import LayerHeads, most_diverse
from lcg.diagnostics.probe import Trajectory
from lcg.text import align

BINS = 20


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
        """The label and what it stands for, in a line."""
        return f"{self.label}  {': '.join(filter(None, (self.name, self.attention)))}"

    def layer(self, name: str) -> LayerHeads | None:
        """The layer of that name, if the run has one."""
        return next((layer for layer in self.layers if layer.name == name), None)

    def alphas(self) -> dict[str, list[float]]:
        """Attention kind -> α of all its heads where it is learned."""
        found: dict[str, list[float]] = {}
        for layer in self.layers:
            if layer.alpha is not None:
                found.setdefault(layer.kind, []).extend(layer.alpha)
        return found


class Column(NamedTuple):
    """A column of a table of heads: the text of a head by its place among those of its layer, None
    where the layer has no such thing, and a line that explains it. Shown for runs in which some
    head has a text and some layer is `relevant`."""

    title: str
    text: Callable[[LayerHeads, int], str | None]
    legend: str = ""
    relevant: Callable[[LayerHeads], bool] = lambda layer: True


def _of(values: Callable[[LayerHeads], Sequence | None], form: str = ".3f") -> Callable:
    """The text of one head, from the values of all heads of a layer, if it has them."""

    def text(layer: LayerHeads, head: int) -> str | None:
        found = values(layer)
        return None if found is None or found[head] is None else number(found[head], form)

    return text


def number(value: float, form: str = ".3f") -> str:
    """A number, or a dash for NaN."""
    return "–" if math.isnan(value) else format(value, form)


def _mean(name: str, form: str = ".3f") -> Callable:
    return _of(lambda layer: layer.means[name], form)


def _quantile(name: str) -> Callable:
    return _of(lambda layer: [known and known[name] for known in layer.scaler], ".2f")


def _strongest(layer: LayerHeads, head: int) -> str:
    step, share = layer.best_offset(head)
    return f"{step:+d} {100 * share:3.0f} %".replace("+0", " 0") if share else "–"


LARGEST = "max w/Σw"
ALPHA = "α of the head: 1 is softmax, 2 sparsemax"
FACTS = (
    Column(
        "slope",
        _of(lambda layer: layer.slopes, ".3g"),
        "m of the position bias -m·|i - j|; 0: the head has none",
    ),
    Column("alpha", _of(lambda layer: layer.alpha), ALPHA),
    Column(
        "support",
        _mean("support", ".1f"),
        "keys with a weight above 0, mean and median over queries",
    ),
    Column("median", _of(lambda layer: layer.median_support, ".0f")),
    Column("max w", _mean("max_weight"), "mean of the rows' largest weights"),
    Column(
        "H/log n",
        _mean("entropy"),
        "mean entropy of a row by that of n equal weights: 1 is complete dispersion",
    ),
    Column(
        "range",
        _mean("logit_range", ".2f"),
        "max - min of a row's scores, and rho: that by 2σ·√(2·log n), 1 for Gaussian scores",
    ),
    Column("rho", _mean("rho", ".2f")),
    *(Column(f"scaler {name}", _quantile(name)) for name in QUANTILES),
)
SCALER = "the factor of the length scaling, at percentiles of the queries"
ANALYSES = (
    Column(
        "density",
        _mean("density"),
        "share of the visible keys with a weight above 0, mean over queries",
    ),
    Column(
        "strongest",
        _strongest,
        "where most queries have their strongest key (key less query), and their share",
    ),
    Column(
        LARGEST,
        _mean("confidence"),
        "mean of the rows' largest weight by the row's sum: max w where rows sum to 1",
    ),
    Column(
        "null",
        _mean("null"),
        "share of queries at which the head has no weight at all",
        lambda layer: any(layer.means["null"]),
    ),
    Column("alpha", _of(lambda layer: layer.alpha), f"learned {ALPHA}"),
)
DIVERSITY = "Jensen–Shannon divergence of the heads, nats: 0 all alike, log H none alike"


def facts_text(layers: list[LayerHeads]) -> str:
    """The table of heads of one run: slopes, α, support, entropy, scores and scalers."""
    table, shown = heads_table([Analysed("", "", "", layers)], FACTS, gap="  ")
    scaled = {"scaler": SCALER} if any(c.title.startswith("scaler") for c in shown) else {}
    text = f"{table}\n\n{_legend(shown, scaled)}"
    null = max(share for layer in layers for share in layer.means["null"])
    if null > 0:
        text += f"\nRows without any weight (up to {100 * null:.1f} % of a head's) count in support"
        text += " and max w as 0; they have no entropy and are left out of its mean."
    return text


def analyses_text(runs: list[Analysed]) -> str:
    """Per head, per layer, and the learned α; the first run's layers come first."""
    table, shown = heads_table(runs, ANALYSES)
    legend = _legend(shown, {"diversity": DIVERSITY})
    null = max(sum(layer.means["null"]) / len(layer.heads) for run in runs for layer in run.layers)
    if null > 0:
        legend += "\nHeads without any weight at a query are left out of max w/Σw and diversity "
        legend += f"there: up to {100 * null:.1f} % of a layer's rows."
    keys = "\n".join(run.key for run in runs)
    return "\n\n".join(filter(None, [keys, table, _layers_table(runs), legend, _alphas(runs)]))


def _legend(shown: Sequence[Column], more: dict[str, str]) -> str:
    lines = {column.title: column.legend for column in shown if column.legend} | more
    return "\n".join(f"{name:<12}{text}" for name, text in lines.items())


def _alphas(runs: list[Analysed]) -> str:
    """A line per run that learns α and attention kind: range, median and histogram from 1 to 2."""
    return "\n".join(
        f"{run.label}  α of {len(values)} {kind} heads: {min(values):.3f} to {max(values):.3f}, "
        f"median {median(values):.3f}, 1|{_bars(values)}|2"
        for run in runs
        for kind, values in run.alphas().items()
    )


def _bars(values: list[float]) -> str:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - 1) * BINS))] += 1
    top = max(counts)
    return "".join(" " if c == 0 else BARS[-(-c * len(BARS) // top) - 1] for c in counts)


def heads_table(
    runs: list[Analysed], columns: Sequence[Column], gap: str = "   "
) -> tuple[str, list[Column]]:
    """A row per layer and head, under each title the runs that it says something of; and the
    columns that are shown."""
    heads: dict[str, list[int]] = {}
    for run in runs:
        for layer in run.layers:
            heads[layer.name] = max(heads.get(layer.name, []), layer.heads, key=len)
    places = [(name, place) for name, some in heads.items() for place in range(len(some))]

    def cells(run: Analysed, column: Column) -> list[str | None]:
        layers = {layer.name: layer for layer in run.layers}
        return [
            column.text(layers[name], place)
            if name in layers and place < len(layers[name].heads)
            else None
            for name, place in places
        ]

    groups = []
    for column in columns:
        told = [
            (run.label, cells(run, column)) for run in runs if any(map(column.relevant, run.layers))
        ]
        told = [(label, own) for label, own in told if any(cell is not None for cell in own)]
        if told:
            groups.append((column, told))
    keys = [("layer", "head"), *((name, str(heads[name][place])) for name, place in places)]
    titled = [(column.title, told) for column, told in groups]
    return _grouped(keys, titled, len(runs) > 1, gap), [column for column, _ in groups]


def _layers_table(runs: list[Analysed]) -> str:
    """A row per layer: the diversity of its heads and their mean density."""
    names = {layer.name: layer.kind for run in runs for layer in run.layers}

    def share(layer: LayerHeads) -> str:
        (diversity,) = layer.means["diversity"]
        return number(100 * diversity / most_diverse(layer), ".0f") + " %" * (
            diversity == diversity
        )

    measures: dict[str, Callable[[LayerHeads], str]] = {
        "diversity": lambda layer: number(layer.means["diversity"][0]),
        "of log H": share,
        "mean density": lambda layer: number(sum(layer.means["density"]) / len(layer.heads)),
    }
    groups = [
        (
            title,
            [
                (run.label, [layer and text(layer) for layer in map(run.layer, names)])
                for run in runs
            ],
        )
        for title, text in measures.items()
    ]
    return _grouped([("layer", "kind"), *names.items()], groups, len(runs) > 1)


Group = tuple[str, list[tuple[str, list[str | None]]]]
"""Columns under one title: of each run its label and its cells."""


def _grouped(
    keys: list[tuple[str, str]], groups: list[Group], labelled: bool, gap: str = "   "
) -> str:
    """Keys, then the groups, under a line of titles and, with `labelled`, a line of labels."""
    blocks = [[""] * labelled + align(keys)]
    for title, runs in groups:
        columns = [[label] * labelled + [cell or "–" for cell in own] for label, own in runs]
        lines = align(zip(*columns, strict=True))
        blocks.append([title.center(len(lines[0])) if labelled else title, *lines])
    return "\n".join(line.rstrip() for line in align(zip(*blocks, strict=True), gap))
