"""The palette, fonts and axes that all pictures share."""

from __future__ import annotations

import textwrap
from typing import Any

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
    """A legend entry, grey unless it is given a colour."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **({"color": SOFT} | style))
