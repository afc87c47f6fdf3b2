"""The numbers of a task as HTML tables: a row per method, then a row per run.

The same numbers as `lcg table`: percent of exact matches, words where there is no value.
"""

from __future__ import annotations

from typing import Any

from lcg.report.tags import Markup, join, tag
from lcg.results.differences import Difference
from lcg.results.groups import Group, Run, setting_text
from lcg.results.paired import Paired
from lcg.results.published import Block, Row
from lcg.results.statistics import Mean, OverSeeds, over_seeds, wilson

NOTHING = "—"
GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "h": "⬢"}


def lengths_of(groups: list[Group]) -> list[int]:
    """All lengths at which any run was evaluated."""
    return sorted({n for group in groups for run in group.runs for n in run.cells})


def best_table(
    groups: list[Group], styles: dict[str, dict[str, Any]], block: Block | None = None
) -> Markup:
    """One row per method: the selected run with Wilson intervals, and how its seeds did.

    Under them the rows of a published block, where there is one.
    """
    end = max(group.train_range[1] for group in groups)
    published = [(row, _published_at(row, end)) for row in block.rows] if block else []
    lengths = sorted({*lengths_of(groups), *(n for _, values in published for n in values)})
    heads = ["method", "seed", "lr", *_headings(groups, lengths)]
    heads += ["mean OOD", "effective length", "trained", "median mean OOD [range]"]
    rows = []
    for group in groups:
        best = group.best
        cells = [_number(best.record.seed), _rate(group)]
        cells += [_cell(best, length, interval=True) for length in lengths]
        cells += [_number(_run_mean(best)), _number(_effective(best))]
        cells += [_number(f"{group.trained} of {len(group.seeds)}"), _number(_seeds(group))]
        rows.append([tag("th", _name(group, styles), scope="row"), *cells])
    for row, values in published:
        cells = [_number(values.get(n, NOTHING if values else "not found")) for n in lengths]
        name = tag("th", f"published: {row.name}", scope="row")
        rows.append([name, *[_number(NOTHING)] * 2, *cells, *[_number(NOTHING)] * 4])
    classes = [None] * len(groups) + ["summary"] * len(published)
    return _table(heads, rows, classes)


def _published_at(row: Row, end: int) -> dict[int, str]:
    """A published row at multiples of the longest training length `end`, doubts marked."""
    return {
        round(multiple * end): percent(value) + (" (suspect)" if multiple in row.suspect else "")
        for multiple, value in row.values.items()
    }


def difference_table(found: list[Difference], groups: list[Group], styles: dict) -> Markup:
    """Selected runs against a baseline's on the same samples: difference, interval, p-value."""
    lengths = sorted({length for difference in found for length in difference.lengths})
    heads = ["method", "baseline", *_headings(groups, lengths)]
    rows = []
    for difference in found:
        cells = [_pair(difference.lengths.get(length)) for length in lengths]
        name = tag("th", _name(difference.group, styles), scope="row")
        rows.append([name, tag("td", _name(difference.baseline, styles)), *cells])
    return _table(heads, rows)


def _pair(pair: Paired | None) -> Markup:
    if pair is None:
        return tag("td", NOTHING, class_="none")
    low, high = (f"{100 * bound:+.1f}" for bound in pair.interval)
    p = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
    more = tag("span", f"[{low}, {high}]", tag("br"), p, class_="interval")
    return tag("td", f"{100 * pair.difference:+.1f}", " ", more)


def run_table(groups: list[Group], styles: dict[str, dict[str, Any]]) -> Markup:
    """One row per run, the selected one of each method in bold, with medians over seeds."""
    lengths = lengths_of(groups)
    heads = ["method", "seed", "lr", *_headings(groups, lengths), "mean OOD", "effective length"]
    rows, classes = [], []
    for group in groups:
        for run in group.runs:
            cells = [_number(run.record.seed), _number(setting_text(run.record.lr))]
            cells += [_cell(run, length) for length in lengths]
            cells += [_number(_run_mean(run)), _number(_effective(run))]
            rows.append([tag("th", _name(group, styles), scope="row"), *cells])
            classes.append("selected" if run is group.best else None)
        if len(group.seeds) > 1:
            rows += _summary(group, lengths, styles)
            classes += ["summary"] * (len(rows) - len(classes))
    return _table(heads, rows, classes)


def _summary(group: Group, lengths: list[int], styles: dict) -> list[list[Markup]]:
    """Median and range over seeds; the mean over those that trained beside that over all."""
    trained = [run.trained for run in group.seeds]
    columns = [[run.exact_match(length) for run in group.seeds] for length in lengths]
    columns.append([run.mean_out_of_distribution.value for run in group.seeds])
    stats = [over_seeds(column, trained) for column in columns]
    n, k = len(group.seeds), group.trained
    if trained.count(False) == n:
        texts = {f"0 of {n} trained": ["did not train"] * len(stats)}
    else:
        texts = {"median [range]": [_median(s) for s in stats]}
        if 0 < k < n:
            texts[f"mean of {k} trained"] = [_mean(s.mean_trained) for s in stats]
        texts[f"mean of all {n}"] = [_mean(s.mean_all) for s in stats]
    return [
        [
            tag("th", _name(group, styles), scope="row"),
            _number(title),
            _number(setting_text(group.lr)),
            *map(_number, values),
            _number(NOTHING),
        ]
        for title, values in texts.items()
    ]


def _headings(groups: list[Group], lengths: list[int]) -> list[str]:
    """The training maximum is marked, what lies beyond is its multiple, if it is shared."""
    ends = {group.train_range[1] for group in groups}
    if len(ends) > 1:
        return [str(n) for n in lengths]
    (end,) = ends
    return [str(n) if n < end else f"{n} ({_multiple(n, end)})" for n in lengths]


def _multiple(length: int, end: int) -> str:
    return "train" if length == end else f"{round(length / end, 2):g}×"


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
        return _number(setting_text(group.lr))
    flag = tag("span", f"not bracketed: extend to {extension:.3g}", class_="flag")
    return tag("td", setting_text(group.lr), tag("br"), flag)


def _cell(run: Run, length: int, interval: bool = False) -> Markup:
    state = run.state(length)
    if state is None:
        return tag("td", NOTHING, class_="none")
    cell = run.cells[length]
    if state != "value":
        return tag("td", state.replace("_", " "), class_="state", title=cell.reason or None)
    value = percent(cell.exact_match)
    if not interval:
        return tag("td", value)
    low, high = wilson(cell.correct, cell.samples)
    bounds = tag("span", f"[{percent(low)}, {percent(high)}]", class_="interval")
    return tag("td", value, " ", bounds)


def _run_mean(run: Run) -> str:
    return "did not train" if run.trained is False else _mean(run.mean_out_of_distribution)


def _mean(mean: Mean) -> str:
    """The mean, with how many values it is over where some are missing."""
    if mean.value is None:
        return NOTHING
    return percent(mean.value) + (f" ({mean.n} of {mean.of})" if mean.n < mean.of else "")


def _median(stats: OverSeeds) -> str:
    if stats.median is None:
        return NOTHING
    text = f"{percent(stats.median)} [{percent(stats.low)}, {percent(stats.high)}]"
    present = stats.mean_all.n
    return text + (f" ({present} of {stats.runs})" if present < stats.runs else "")


def _seeds(group: Group) -> str:
    """The mean beyond training over the seeds at the selected learning rate."""
    if all(run.trained is False for run in group.seeds):
        return "did not train"
    values = [run.mean_out_of_distribution.value for run in group.seeds]
    return _median(over_seeds(values, [run.trained for run in group.seeds]))


def _effective(run: Run) -> str:
    """≥ L if the longest evaluated length passes, < L if the shortest fails."""
    evaluated = [n for n, cell in run.cells.items() if cell.exact_match is not None]
    if not evaluated:
        return NOTHING
    if run.trained is False:
        return "did not train"
    reached = run.effective_length
    if reached is None:
        return f"< {evaluated[0]}"
    return f"≥ {reached}" if reached == evaluated[-1] else str(reached)


def percent(fraction: float) -> str:
    """With one decimal, without the sign."""
    return f"{100 * fraction:.1f}"


def _number(text: Any) -> Markup:
    return tag("td", str(text))


def _table(heads: list[str], rows: list[list[Markup]], classes: list | None = None) -> Markup:
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    classes = classes or [None] * len(rows)
    body = [tag("tr", *row, class_=c) for row, c in zip(rows, classes, strict=True)]
    table = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", tabindex="0")
