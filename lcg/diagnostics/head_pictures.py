"""Pictures of the head analyses: α of every kind, density, diversity, positional heads.

Runs have the same colour in every picture, panels of one run stand in one row or column.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcg.diagnostics.analysis import LayerHeads, most_diverse
from lcg.diagnostics.side_by_side import BINS, Analysed
from lcg.results import write_atomic
from lcg.results.plot import COLOURS, FONTS

GREY = "#555555"
LOOK = {**FONTS, "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9.5, "legend.fontsize": 8}
WIDEST = 14  # inches that panels beside each other may take; further ones go to the next row
ANNOTATED = 16  # heads of a layer whose numbers have room in a picture


def draw_analyses(runs: list[Analysed], title: str, folder: Path) -> list[Path]:
    """Write alpha_histogram, alpha_trajectories, density, head_diversity and positional_heads.

    The first two are left out where no run learns α, or logged none. Returns the paths.
    """
    pictures: dict[str, Callable[[list[Analysed]], Any]] = {
        "density": _density,
        "head_diversity": _diversity,
        "positional_heads": _positional,
    }
    if any(run.alphas() for run in runs):
        pictures["alpha_histogram"] = _histogram
    if any(run.trajectories for run in runs):
        pictures["alpha_trajectories"] = _trajectories
    import matplotlib

    paths = []
    with matplotlib.rc_context(LOOK):
        for name, draw in sorted(pictures.items()):
            figure = draw(runs)
            lines = _title(title, runs)
            figure.suptitle(lines, fontsize=9)
            figure.set_figheight(figure.get_figheight() + 0.15 * lines.count("\n"))
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
            paths.append(write_atomic(folder / f"{name}.png", content.getvalue()))
    return paths


def _title(title: str, runs: list[Analysed]) -> str:
    """The title, and below it what each label stands for where there are several."""
    return "\n".join([title, *(run.key for run in runs)]) if len(runs) > 1 else title


def _panel_each(runs: list[Analysed], width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure with a panel of that size per run, in as many rows as it takes."""
    columns = max(1, min(len(runs), int(WIDEST // width)))
    figure, panels = _grid(math.ceil(len(runs) / columns), columns, width, height)
    for spare in panels.flat[len(runs) :]:
        spare.remove()
    return figure, list(panels.flat[: len(runs)])


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of panels of that size in inches, and the panels [rows columns]."""
    from matplotlib.figure import Figure

    size = (max(4.2, width * columns + 0.8), height * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _colours(runs: list[Analysed]) -> dict[str, str]:
    return {run.label: COLOURS[i % len(COLOURS)] for i, run in enumerate(runs)}


def _name(run: Analysed) -> str:
    return f"{run.label}: {run.attention}"


def _alpha_grid(found: dict[str, dict[str, Any]], runs: list[Analysed]):
    """Panels for what each run (row) has of each attention kind (column); others are hidden."""
    own = [run for run in runs if found[run.label]]
    kinds = list(dict.fromkeys(kind for run in own for kind in found[run.label]))
    figure, panels = _grid(len(own), len(kinds), 3.8, 2.5)
    shown = []
    for row, run in zip(panels, own, strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            if kind not in found[run.label]:
                panel.set_visible(False)
                continue
            panel.set_title(f"{_name(run)}, {kind}")
            panel.spines[["top", "right"]].set_visible(False)
            shown.append((panel, run, found[run.label][kind]))
    return figure, shown


def _histogram(runs: list[Analysed]) -> Any:
    from matplotlib.ticker import MaxNLocator

    colours = _colours(runs)
    figure, shown = _alpha_grid({run.label: run.alphas() for run in runs}, runs)
    edges = [1 + i / BINS for i in range(BINS + 1)]
    for panel, run, values in shown:
        panel.hist(values, edges, color=colours[run.label], edgecolor="white", linewidth=0.6)
        panel.axvline(sum(values) / len(values), color=GREY, linestyle="--", linewidth=1)
        panel.set_xlim(1, 2)
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("learned α (1 softmax, 2 sparsemax; dashed: mean)")
        panel.set_ylabel(f"heads of {len(values)}")
    return figure


def _trajectories(runs: list[Analysed]) -> Any:
    from matplotlib import colormaps

    figure, shown = _alpha_grid({run.label: run.trajectories for run in runs}, runs)
    for panel, _, heads in shown:
        layers = list(dict.fromkeys(head.layer for head in heads))
        shades = colormaps["viridis"]
        for head in heads:
            place = layers.index(head.layer)
            few = {"marker": "."} if len(head.steps) < 20 else {}
            panel.plot(
                head.steps,
                head.values,
                color=shades(0.9 * place / max(1, len(layers) - 1)),
                linewidth=1.2,
                label=head.layer if head is _first(heads, head.layer) else None,
                **few,
            )
        panel.set_ylim(1, 2)
        panel.set_xlabel("step")
        panel.set_ylabel("α of each head")
        panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _first(heads: list, layer: str) -> Any:
    return next(head for head in heads if head.layer == layer)


def _density(runs: list[Analysed]) -> Any:
    from matplotlib.colors import PowerNorm

    heads = max(len(layer.density) for run in runs for layer in run.layers)
    layers = max(len(run.layers) for run in runs)
    size = (0.42 * heads + 1.2, 0.36 * layers + 0.9)
    figure, panels = _panel_each(runs, max(2.6, size[0]), max(1.6, size[1]))
    for panel, run in zip(panels, runs, strict=True):
        table = [_padded(layer.density, heads) for layer in run.layers]
        image = _heat(panel, table, PowerNorm(0.5, 0, 1), [layer.name for layer in run.layers])
        if heads <= ANNOTATED:
            _annotate(panel, table)
        panel.set_xticks(range(heads))
        panel.set_xlabel("head")
        panel.set_title(_name(run))
    bar = figure.colorbar(image, ax=panels, shrink=0.9)
    bar.set_label("density")
    return figure


def _diversity(runs: list[Analysed]) -> Any:
    colours = _colours(runs)
    names = list(dict.fromkeys(layer.name for run in runs for layer in run.layers))
    figure, panels = _grid(1, 1, max(4.0, 0.5 * len(names) * len(runs) + 1.5), 2.6)
    panel, width = panels[0][0], 0.8 / len(runs)
    for index, run in enumerate(runs):
        places = [names.index(layer.name) + (index + 0.5) * width - 0.4 for layer in run.layers]
        heights = [layer.diversity for layer in run.layers]
        panel.bar(places, heights, 0.92 * width, color=colours[run.label], label=_name(run))
    for most in sorted({most_diverse(layer) for run in runs for layer in run.layers}):
        panel.axhline(most, color=GREY, linestyle="--", linewidth=1)
    panel.annotate(
        "dashed: log H, heads without a common key",
        (0, 1),
        xycoords="axes fraction",
        xytext=(2, 3),
        textcoords="offset points",
        fontsize=8,
        color=GREY,
    )
    panel.set_xticks(range(len(names)), names, rotation=0 if len(names) < 7 else 60)
    panel.set_ylabel("Jensen–Shannon divergence (nats)")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _positional(runs: list[Analysed]) -> Any:
    from matplotlib.colors import Normalize

    rows = max(sum(len(layer.density) for layer in run.layers) for run in runs)
    steps = _steps(runs)
    size = (0.27 * len(steps) + 1.9, 0.23 * rows + 0.8)
    figure, panels = _panel_each(runs, max(2.6, size[0]), max(1.8, size[1]))
    for panel, run in zip(panels, runs, strict=True):
        table, labels = [], []
        for layer in run.layers:
            first = layer.steps.index(steps[0])
            for head in range(len(layer.density)):
                table.append(layer.offsets[head, first : first + len(steps)].tolist())
                labels.append(f"{layer.name} · {head}  ({layer.confidence[head]:.2f})")
        image = _heat(panel, table, Normalize(0, 1), labels)
        some = range(len(steps)) if len(steps) <= 9 else range(0, len(steps), 2)
        panel.set_xticks(some, [f"{steps[i]:+d}" if steps[i] else "0" for i in some])
        panel.tick_params(labelsize=7)
        panel.set_xlabel("strongest key less query")
        panel.set_title(_name(run))
    panels[0].set_ylabel("layer · head  (confidence)")
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 3 / size[1]))
    bar.set_label("share of queries")
    return figure


def _steps(runs: list[Analysed]) -> list[int]:
    """The offsets to show: none to the right where all attention is causal."""
    layers: list[LayerHeads] = [layer for run in runs for layer in run.layers]
    causal = all(layer.kind == "causal" for layer in layers)
    return [step for step in layers[0].steps if step <= 0 or not causal]


def _heat(panel: Any, table: list[list[float]], norm: Any, labels: list[str]) -> Any:
    image = panel.imshow(table, norm=norm, cmap="viridis_r", aspect="auto", interpolation="nearest")
    panel.set_yticks(range(len(labels)), labels)
    panel.tick_params(length=2)
    return image


def _annotate(panel: Any, table: list[list[float]]) -> None:
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            if value == value:
                dark = value > 0.25  # where the scale is dark
                text = f"{value:.2f}".removeprefix("0") if value < 1 else "1"
                panel.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else "black",
                )


def _padded(values: list[float], count: int) -> list[float]:
    return values + [float("nan")] * (count - len(values))
