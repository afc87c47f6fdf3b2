"""The numbers of a task as HTML tables: a row per method, then a row per run.

The same numbers as `lcg table`: percent of exact matches, words where there is no value.
"""

from __future__ import annotations

from typing import Any

from lcg.report.tags import Markup, join, tag
from lcg.results.differences import Difference
from lcg.results.groups import Group, Run
from lcg.results.published import Block
from lcg.results.wording import (
    NOTHING,
    compared_lengths,
    effective_length,
    headings,
    interval_text,
    lengths_of,
    mean_beyond_training,
    median_beyond_training,
    metric_text,
    no_pair_text,
    paired_text,
    published_at,
    rate_text,
    summary,
    trained_text,
    value_text,
)

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "h": "⬢"}


def best_table(
    groups: list[Group], styles: dict[str, dict[str, Any]], block: Block | None = None
) -> Markup:
    """One row per method: the selected run with Wilson intervals, and how its seeds did.

    Under them the rows of a published block, where there is one.
    """
    end = max(group.train_range[1] for group in groups)
    published = [(row, published_at(row, end)) for row in block.rows] if block else []
    lengths = sorted({*lengths_of(groups), *(n for _, values in published for n in values)})
    heads = ["method", "seed", "lr", *headings(groups, lengths)]
    heads += ["mean OOD", "effective length", "trained", "median mean OOD [range]"]
    rows = []
    for group in groups:
        best = group.best
        cells = [_number(best.record.seed), _rate(group)]
        cells += [_cell(best, length, interval=True) for length in lengths]
        cells += [
            _number(mean_beyond_training(best, lengths_of(groups))),
            _number(effective_length(best)),
        ]
        cells += [_number(trained_text(group)), _number(median_beyond_training(group))]
        rows.append([tag("th", _name(group, styles), scope="row"), *cells])
    for row, values in published:
        cells = [_number(values.get(n, NOTHING if values else "not found")) for n in lengths]
        name = tag("th", f"published: {row.name}", scope="row")
        rows.append([name, *[_number(NOTHING)] * 2, *cells, *[_number(NOTHING)] * 4])
    classes = [None] * len(groups) + ["summary"] * len(published)
    return _table(heads, rows, classes)


def metric_table(groups: list[Group], styles: dict[str, dict[str, Any]], name: str) -> Markup:
    """One row per method: what the selected run has of a metric at every length."""
    lengths = lengths_of(groups)
    rows = []
    for group in groups:
        cells = [_number(group.best.record.seed), _number(rate_text(group.best))]
        cells += [_number(metric_text(group.best, length, name)) for length in lengths]
        rows.append([tag("th", _name(group, styles), scope="row"), *cells])
    return _table(["method", "seed", "lr", *headings(groups, lengths)], rows)


def difference_table(found: list[Difference], groups: list[Group], styles: dict) -> Markup:
    """Selected runs against a baseline's on the same samples: difference, interval, p-value."""
    lengths = compared_lengths(found)
    heads = ["method", "baseline", *headings(groups, lengths)]
    rows = []
    for difference in found:
        cells = [_pair(difference, length) for length in lengths]
        name = tag("th", _name(difference.group, styles), scope="row")
        rows.append([name, tag("td", _name(difference.baseline, styles)), *cells])
    return _table(heads, rows)


def _pair(compared: Difference, length: int) -> Markup:
    pair = compared.lengths.get(length)
    if pair is None:
        text = no_pair_text(compared, length)
        return tag("td", text, class_="none" if text == NOTHING else "state")
    difference, interval, p = paired_text(pair)
    return tag("td", difference, " ", tag("span", interval, tag("br"), p, class_="interval"))


def run_table(groups: list[Group], styles: dict[str, dict[str, Any]]) -> Markup:
    """One row per run, the selected one of each method in bold, with medians over seeds."""
    lengths = lengths_of(groups)
    heads = ["method", "seed", "lr", *headings(groups, lengths), "mean OOD", "effective length"]
    rows, classes = [], []
    for group in groups:
        for run in group.runs:
            cells = [_number(run.record.seed), _number(rate_text(run))]
            cells += [_cell(run, length) for length in lengths]
            cells += [_number(mean_beyond_training(run, lengths)), _number(effective_length(run))]
            rows.append([tag("th", _name(group, styles), scope="row"), *cells])
            classes.append("selected" if run is group.best else None)
        if len(group.seeds) > 1:
            rows += _summary(group, lengths, styles)
            classes += ["summary"] * (len(rows) - len(classes))
    return _table(heads, rows, classes)


def _summary(group: Group, lengths: list[int], styles: dict) -> list[list[Markup]]:
    """What the seeds at the selected learning rate have in common."""
    name = tag("th", _name(group, styles), scope="row")
    rate = _number(rate_text(group.best))
    return [
        [name, _number(title), rate, *map(_number, texts)]
        for title, texts in summary(group, lengths)
    ]


def _name(group: Group, styles: dict[str, dict[str, Any]]) -> Markup:
    style = styles[group.name]
    return join([_swatch(style), " ", group.name])


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


def _rate(group: Group) -> Markup:
    """The selected learning rate, marked where its grid ends at it."""
    extension = group.not_bracketed
    if extension is None:
        return _number(rate_text(group.best))
    flag = tag("span", f"not bracketed: extend to {extension:.3g}", class_="flag")
    return tag("td", rate_text(group.best), tag("br"), flag)


def _cell(run: Run, length: int, interval: bool = False) -> Markup:
    state, text = run.state(length), value_text(run, length)
    if state is None:
        return tag("td", text, class_="none")
    if state != "value":
        return tag("td", text, class_="state", title=run.cells[length].reason or None)
    if not interval:
        return tag("td", text)
    return tag("td", text, " ", tag("span", interval_text(run, length), class_="interval"))


def _number(text: Any) -> Markup:
    return tag("td", str(text))


def _table(heads: list[str], rows: list[list[Markup]], classes: list | None = None) -> Markup:
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    classes = classes or [None] * len(rows)
    body = [tag("tr", *row, class_=c) for row, c in zip(rows, classes, strict=True)]
    table = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", tabindex="0")
