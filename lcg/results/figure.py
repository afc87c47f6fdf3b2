"""Figures as standalone SVG, and the same SVG as a part of a page."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lcg.results.aggregate import Group
from lcg.results.plot import FAINT, FONTS, INK, PAPER, SMALL_HEIGHT, SMALL_WIDTH, SOFT

# Narrow, so that a phone shows the words at nearly their size; a wide screen sets two side by side.
WIDTH = 3.7  # of a panel, in inches
LOOK = {
    **FONTS,
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9.5,
    "grid.color": INK,
    "svg.fonttype": "none",  # words stay words: searchable, and in the reader's own font
}


SCALED = "Scaled: the length scaling multiplies these heads' queries."

# What a page draws in its own colours, light or dark; methods keep theirs.
PAGE_COLOURS = {
    INK: "currentColor",
    "#444444": "currentColor",
    SOFT: "currentColor",
    "#888888": "currentColor",
    "#999999": "currentColor",
    PAPER: "var(--picture, #ffffff)",
    "#0072b2": "var(--blue, #0072b2)",  # too dark for dark paper
    "#6a5acd": "var(--violet, #6a5acd)",
    FAINT.lower(): "var(--faint, #c4c4c4)",
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure. name: unique on the page, also its file's name. svg: a document."""

    name: str
    title: str
    caption: str
    svg: str

    @property
    def inline(self) -> str:
        """The SVG element for an HTML page: every id begins with the figure's name, and ink and
        paper are those of the page, so that it can be read in the dark."""
        element = self.svg[self.svg.index("<svg") :]
        element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
        element = re.sub(r'\bid="', f'id="{self.name}-', element)
        element = element.replace("url(#", f"url(#{self.name}-")
        for colour, of_page in PAGE_COLOURS.items():
            element = re.sub(rf"((?:fill|stroke): ){colour}\b", rf"\1{of_page}", element)
        return re.sub(r'\bhref="#', f'href="#{self.name}-', element)

    @property
    def data_url(self) -> str:
        """The document itself, for a link that downloads it without any script."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


@dataclass(frozen=True)
class Planned:
    """A figure that can be drawn, or that ends in a note saying why it cannot.

    draw: returns a Drawing, or a one-line note.
    """

    title: str
    draw: Callable[[], Drawing | str]


@contextmanager
def look() -> Iterator[None]:
    """Fonts and SVG settings of every figure of a report."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        yield


def stacked(heights: list[float], gap: float = 0.35) -> tuple[Any, list[Any]]:
    """A figure of panels below each other, WIDTH wide, `heights` in inches, sharing their x."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    total = sum(heights) + gap * len(heights) + 1.6
    figure = Figure(figsize=(WIDTH + 1.0, total))
    panels: list[Any] = []
    top = total - 0.5
    for height in heights:
        place = (0.7 / (WIDTH + 1.0), (top - height) / total, WIDTH / (WIDTH + 1.0), height / total)
        panels.append(figure.add_axes(place, sharex=panels[0] if panels else None))
        panels[-1].tick_params(labelbottom=len(panels) == len(heights))
        top -= height + gap
    return figure, panels


def multiples(title: str, count: int) -> tuple[Any, list[Any]]:
    """A figure of `count` small panels over the same axes, three side by side."""
    from matplotlib.figure import Figure

    columns = 3
    rows = -(-count // columns)
    size = (columns * SMALL_WIDTH, rows * SMALL_HEIGHT + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    for index, panel in enumerate(panels[:count]):
        panel.tick_params(labelsize=7.5, labelbottom=index + columns >= count)
    figure.suptitle(wrapped(title), x=0.01, ha="left", weight="bold", fontsize=10.5)
    return figure, panels[:count]


def step_axis(panel: Any) -> None:
    """An axis of training steps, which are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))


def wrapped(text: str, width: int = int(13 * WIDTH)) -> str:
    """A label in lines of so many characters, by default those of a legend."""
    return textwrap.fill(text, width)


def marker_of(steps: list) -> dict[str, Any]:
    """A curve of a few points shows them, since a single one has no line."""
    return {"marker": "o", "markersize": 3.5} if len(steps) < 5 else {}


def finish(panel: Any) -> None:
    """The frame and the grid that all panels share."""
    panel.grid(axis="y", color=INK, alpha=0.08, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(length=3.5, color="#888888")


def svg_of(figure: Any) -> str:
    """The figure as an SVG document without dates, so that the same input gives the same bytes."""
    text = io.StringIO()
    metadata = {"Date": None, "Creator": None}
    figure.savefig(
        text, format="svg", metadata=metadata, bbox_inches="tight", pad_inches=0.05, dpi=144
    )
    return text.getvalue()


def shades(colour: str, count: int) -> list[str]:
    """`count` mixtures of a method's colour with white, the last one the colour itself."""
    from matplotlib.colors import to_hex, to_rgb

    steps = [0.5 * (count - 1 - i) / max(1, count - 1) for i in range(count)]
    return [to_hex([c + (1 - c) * step for c in to_rgb(colour)]) for step in steps]


def seeds_text(groups: list[Group]) -> str:
    """How many seeds there are at the selected learning rates: "3 seeds", "1–3 seeds"."""
    counts = sorted({len(group.seeds) for group in groups})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{number} seed{'' if counts == [1] else 's'}"
