"""Tables as HTML: the same as `lcg table` prints, with each method's line and marker beside it."""

from __future__ import annotations

from typing import Any

from lcg.report.tags import Markup, join, tag
from lcg.results.tables import Entry, Table

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "h": "⬢"}
CLASSES = {"state": "state", "none": "none"}

Styles = dict[str, dict[str, Any]]


def html_table(table: Table, styles: Styles) -> Markup:
    """How to read a table, and the table in a box that scrolls where the page is narrower."""
    head = tag("tr", *(tag("th", text, scope="col") for text in table.header))
    rows = [
        tag(
            "tr",
            tag("th", _content(row[0], styles), scope="row"),
            *(_entry(entry, styles) for entry in row[1:]),
            class_="summary" if number in table.summaries else None,
        )
        for number, row in enumerate(table.rows)
    ]
    body = tag("table", tag("thead", head), tag("tbody", *rows))
    box = tag("div", body, class_="scroll", tabindex="0", role="region", aria_label=table.title)
    return join([tag("p", table.about, class_="about"), box]) if table.about else box


def _entry(entry: Entry, styles: Styles) -> Markup:
    return tag(
        "td",
        _content(entry, styles),
        class_=CLASSES.get(entry.kind),
        title=entry.about or None,
    )


def _content(entry: Entry, styles: Styles) -> Markup:
    text = tag("strong", entry.text) if entry.strong else entry.text
    style = styles.get(entry.text) if entry.kind == "method" else None
    swatch = [_swatch(style), " "] if style else []
    note = [" ", tag("span", entry.note, class_="interval")] if entry.note else []
    return join([*swatch, text, *note])


def _swatch(style: dict[str, Any]) -> Markup:
    """A method's line and marker, as the figures have them."""
    dashes = style["linestyle"]
    pattern = None if dashes == "-" else " ".join(str(2.2 * part) for part in dashes[1])
    colour = style["color"]
    line = tag(
        "line", x1=0, y1=6, x2=32, y2=6, stroke=colour, stroke_width=2.4, stroke_dasharray=pattern
    )
    glyph = GLYPHS.get(style["marker"], "●")
    marker = tag("text", glyph, x=16, y=10.5, font_size=13, text_anchor="middle", fill=colour)
    return tag("svg", line, marker, class_="swatch", viewBox="0 0 32 12", aria_hidden="true")
