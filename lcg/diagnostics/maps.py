"""Attention maps as pictures, a grid of heads per layer."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from lcg.diagnostics.inspection import LayerFacts
from lcg.results import write_atomic

CELL = 2.7  # inches of a head's map
COLUMNS = 4


def draw_layer(facts: LayerFacts, title: str, path: Path) -> Path:
    """Write one layer's heads as a PNG; rows are queries, white is a weight of exactly 0."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(facts.heads))
    rows = -(-len(facts.heads) // columns)
    figure = Figure(
        figsize=(CELL * columns + 1.3, (CELL + 0.35) * rows + 0.6), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    scale = PowerNorm(0.5, 0, max(1e-12, float(facts.pictures.max())))
    for panel, head, picture in zip(panels, facts.heads, facts.pictures, strict=False):
        shown = picture.masked_fill(picture == 0, torch.nan).numpy()
        image = panel.imshow(
            shown,
            norm=scale,
            cmap="viridis_r",
            extent=(0, facts.keys, facts.queries, 0),
            aspect="auto" if facts.kind == "cross" else "equal",
            interpolation="nearest",
        )
        slope = "" if head.slope is None else f", slope {head.slope:.3g}"
        panel.set_title(f"head {head.head}{slope}, {head.support:.1f} keys", fontsize=8)
        panel.tick_params(labelsize=6)
    for panel in panels[len(facts.heads) :]:
        panel.set_visible(False)
    figure.supxlabel("key", fontsize=8)
    figure.supylabel("query", fontsize=8)
    figure.suptitle(title, fontsize=9)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.7)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("weight", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=200, metadata={"Software": None})
    return write_atomic(path, content.getvalue())
