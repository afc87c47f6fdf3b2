"""The palette, fonts, axes and panels that all figures share, and a figure as a file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours that stay apart under colour blindness, without yellow and black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A5ACD", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)))  # one more round of colours each
INK, SOFT, FAINT, PAPER = "#000000", "#555555", "#C4C4C4", "#ffffff"
SHARED = len(COLOURS)  # methods that have room in one panel
SMALL_WIDTH, SMALL_HEIGHT = 1.75, 1.45  # inches of one panel of many
FONTS = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.labelsize": 11.5,
    "legend.fontsize": 10,
    "svg.hashsalt": "lcg",
    "text.parse_math": False,  # a dollar in a label is a dollar
}


def image(figure: Figure, kind: str, look: Mapping[str, Any] = FONTS, **options: Any) -> bytes:
    """The content of a .png, .svg or .pdf file of a figure; the same figure has the same bytes.

    look: the settings that the figure was made with.
    """
    import matplotlib

    content = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    options = {"dpi": 160, "metadata": metadata, "bbox_inches": "tight"} | options
    with matplotlib.rc_context(look):
        figure.savefig(content, format=kind, **options)
    return content.getvalue()


def method_panels(
    figure: Any, names: Sequence[str], columns: int, xlabel: str, rows: int = 1
) -> list[list[Any]]:
    """The panels of each method: `rows` below each other that all methods share, where they have
    room in them, else a small one for each over the same axes."""
    if len(names) <= SHARED:
        panels = list(figure.subplots(rows, sharex=True, squeeze=False).flat)
        panels[-1].set_xlabel(xlabel)
        return [panels] * len(names)
    grid = (-(-len(names) // columns), columns)
    panels = list(figure.subplots(*grid, sharex=True, sharey=True, squeeze=False).flat)
    for spare in panels[len(names) :]:
        spare.remove()
    for index, (panel, name) in enumerate(zip(panels, names, strict=False)):
        panel.set_title(wrapped(name, 24), loc="left", fontsize=8, pad=3)
        lowest = index + columns >= len(names)
        panel.tick_params(labelsize=7.5, labelbottom=lowest)
        panel.set_xlabel(xlabel if lowest else "", fontsize=8.5)
    return [[panel] for panel in panels[: len(names)]]


def frame(panel: Any) -> None:
    """Draw the grid and the two spines that a panel has."""
    panel.grid(axis="y", color=INK, alpha=0.08, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(length=3.5, color="#888888")


def wrapped(text: str, width: float) -> str:
    """A label in lines of so many characters."""
    return textwrap.fill(text, int(width))


def hollow(style: dict[str, Any], empty: bool, edge: float = 0.6) -> dict[str, Any]:
    """A marker's face and edge: filled with a rim of paper, or `empty` for what did not train."""
    colour = style["color"]
    return {
        "markerfacecolor": PAPER if empty else colour,
        "markeredgecolor": colour if empty else PAPER,
        "markeredgewidth": 2 * edge if empty else edge,
    }


def legend_entry(label: str, **style: Any) -> Any:
    """A legend entry, grey unless it is given a colour; a line if it is given a width."""
    from matplotlib.lines import Line2D

    usual = {"color": SOFT, "linestyle": "-" if "linewidth" in style else "none", "markersize": 6}
    return Line2D([], [], label=label, **(usual | style))
