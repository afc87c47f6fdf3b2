"""Print the heads of runs: a table of heads, one of layers, the runs in columns, and legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from lcg.diagnostics.columns import QUANTILES
from lcg.diagnostics.errors import bars
from lcg.diagnostics.heads import LayerHeads
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
        by_kind: dict[str, list[float]] = {}
        for layer in self.layers:
            if layer.alpha is not None:
                by_kind.setdefault(layer.kind, []).extend(layer.alpha)
        return by_kind


class Column(NamedTuple):
    """A column of a table of heads or layers.

    values: the measure whose means it shows, or from a layer to a number or text of each head, None
    where there is no such thing. A column is shown for runs in which some head has a value and some
    layer is `relevant`.
    """

    title: str
    values: str | Callable[[LayerHeads], Sequence[float | str | None] | None]
    form: str = ".3f"
    legend: str = ""
    relevant: Callable[[LayerHeads], bool] = lambda layer: True

    def cell(self, layer: LayerHeads | None, place: int) -> str | None:
        """The text of a head by its place among those of its layer."""
        named = isinstance(self.values, str)
        values = layer and (layer.means[self.values] if named else self.values(layer))
        value = values[place] if values and place < len(values) else None
        if isinstance(value, float):
            return "–" if math.isnan(value) else format(value, self.form)
        return value


def _strongest(layer: LayerHeads) -> list[str]:
    best = map(layer.best_offset, range(len(layer.heads)))
    return [
        f"{at:+d} {100 * share:3.0f} %".replace("+0", " 0") if share else "–" for at, share in best
    ]


def _of_most(layer: LayerHeads) -> list[float | str]:
    (diversity,) = layer.means["diversity"]
    share = 100 * diversity / layer.most_diverse
    return [share if math.isnan(share) else f"{share:.0f} %"]


LARGEST = "max w/Σw"
ALPHA = "α of the head: 1 is softmax, 2 sparsemax"
SCALER = "the factor of the length scaling, at percentiles of the queries"
FACTS = (
    Column(
        "slope",
        lambda layer: layer.slopes,
        ".3g",
        "m of the position bias -m·|i - j|; 0: the head has none",
    ),
    Column("alpha", lambda layer: layer.alpha, legend=ALPHA),
    Column("support", "support", ".1f", "keys with a weight above 0, mean and median over queries"),
    Column("median", lambda layer: layer.median_support, ".0f"),
    Column("max w", "max_weight", legend="mean of the rows' largest weights"),
    Column(
        "H/log n",
        "entropy",
        legend="mean entropy of a row by that of n equal weights: 1 is complete dispersion",
    ),
    Column(
        "range",
        "logit_range",
        ".2f",
        "max - min of a row's scores, and rho: that by 2σ·√(2·log n), 1 for Gaussian scores",
    ),
    Column("rho", "rho", ".2f"),
    *(
        Column(
            f"scaler {name}",
            lambda layer, name=name: [known and known[name] for known in layer.scaler],
            ".2f",
        )
        for name in QUANTILES
    ),
)
ANALYSES = (
    Column(
        "density",
        "density",
        legend="share of the visible keys with a weight above 0, mean over queries",
    ),
    Column(
        "strongest",
        _strongest,
        legend="where most queries have their strongest key (key less query), and their share",
    ),
    Column(
        LARGEST,
        "confidence",
        legend="mean of the rows' largest weight by the row's sum: max w where rows sum to 1",
    ),
    Column(
        "null",
        "null",
        legend="share of queries at which the head has no weight at all",
        relevant=lambda layer: any(layer.means["null"]),
    ),
    Column("alpha", lambda layer: layer.alpha, legend=f"learned {ALPHA}"),
)
DIVERSITY = "Jensen–Shannon divergence of the heads, nats: 0 all alike, log H none alike"
LAYERS = (
    Column("diversity", "diversity"),
    Column("of log H", _of_most),
    Column("mean density", lambda layer: [sum(layer.means["density"]) / len(layer.heads)]),
)


def facts_text(layers: list[LayerHeads]) -> str:
    """The table of heads of one run: slopes, α, support, entropy, scores and scalers."""
    table, shown = _heads_table([Analysed("", "", "", layers)], FACTS, gap="  ")
    scaled = {"scaler": SCALER} if any(c.title.startswith("scaler") for c in shown) else {}
    text = f"{table}\n\n{_legend(shown, scaled)}"
    null = max(share for layer in layers for share in layer.means["null"])
    if null > 0:
        text += f"\nRows without any weight (up to {100 * null:.1f} % of a head's) count in support"
        text += " and max w as 0; they have no entropy and are left out of its mean."
    return text


def analyses_text(runs: list[Analysed]) -> str:
    """Per head, per layer, and the learned α; the first run's layers come first."""
    heads, shown = _heads_table(runs, ANALYSES)
    kinds = {layer.name: layer.kind for run in runs for layer in run.layers}
    rows = [(name, kind, 0) for name, kind in kinds.items()]
    layers, _ = _table(runs, LAYERS, ("layer", "kind"), rows)
    legend = _legend(shown, {"diversity": DIVERSITY})
    null = max(sum(layer.means["null"]) / len(layer.heads) for run in runs for layer in run.layers)
    if null > 0:
        legend += "\nHeads without any weight at a query are left out of max w/Σw and diversity "
        legend += f"there: up to {100 * null:.1f} % of a layer's rows."
    keys = "\n".join(run.key for run in runs)
    return "\n\n".join(filter(None, [keys, heads, layers, legend, _alphas(runs)]))


def _legend(shown: Sequence[Column], more: dict[str, str]) -> str:
    lines = {column.title: column.legend for column in shown if column.legend} | more
    return "\n".join(f"{name:<12}{text}" for name, text in lines.items())


def _alphas(runs: list[Analysed]) -> str:
    """A line per run that learns α and attention kind: range, median and histogram from 1 to 2."""
    lines = []
    for run in runs:
        for kind, values in run.alphas().items():
            counts = [0] * BINS
            for value in values:
                counts[min(BINS - 1, int((value - 1) * BINS))] += 1
            lines.append(
                f"{run.label}  α of {len(values)} {kind} heads: {min(values):.3f} to "
                f"{max(values):.3f}, median {median(values):.3f}, 1|{bars(counts)}|2"
            )
    return "\n".join(lines)


def _heads_table(
    runs: list[Analysed], columns: Sequence[Column], gap: str = "   "
) -> tuple[str, list[Column]]:
    heads: dict[str, list[int]] = {}
    for run in runs:
        for layer in run.layers:
            heads[layer.name] = max(heads.get(layer.name, []), layer.heads, key=len)
    rows = [(name, str(h), place) for name, some in heads.items() for place, h in enumerate(some)]
    return _table(runs, columns, ("layer", "head"), rows, gap)


def _table(
    runs: list[Analysed],
    columns: Sequence[Column],
    titles: tuple[str, str],
    rows: Sequence[tuple[str, str, int]],
    gap: str = "   ",
) -> tuple[str, list[Column]]:
    """A row per layer, its second title, and place of a head; under each title the runs that it
    says something of, by their labels where they are several; and the columns that are shown."""
    labelled = len(runs) > 1
    blocks = [[""] * labelled + align([titles, *(row[:2] for row in rows)])]
    shown = []
    for column in columns:
        titled = []
        for run in runs:
            cells = [column.cell(run.layer(name), place) for name, _, place in rows]
            if any(map(column.relevant, run.layers)) and any(cells):
                titled.append([run.label] * labelled + [cell or "–" for cell in cells])
        if titled:
            lines = align(zip(*titled, strict=True))
            title = column.title.center(len(lines[0])) if labelled else column.title
            blocks.append([title, *lines])
            shown.append(column)
    return "\n".join(line.rstrip() for line in align(zip(*blocks, strict=True), gap)), shown
