"""The page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lcg.report.tags import Markup, join, tag
from lcg.results.figure import Drawing

CSS = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class Block:
    """A task on the page. parts: of it, in their order. figures: in parts of their own name."""

    anchor: str
    title: str
    about: str
    results: Sequence[Drawing]
    tables: Sequence[tuple[str, Markup, bool]]
    more: Sequence[tuple[str, Sequence[Drawing]]]


def page(
    title: str,
    lead: str,
    problems: Sequence[str],
    blocks: Sequence[Block],
    notes: Sequence[str],
    provenance: Markup,
) -> str:
    """The whole document. problems: what was left out, shown on top; notes: one sentence each."""
    links = [(block.anchor, block.title) for block in blocks]
    links += [("notes", "Notes")] if notes else []
    links.append(("provenance", "Provenance"))
    items = (tag("li", tag("a", text, href=f"#{anchor}")) for anchor, text in links)
    body = [
        tag(
            "header", tag("h1", title), tag("p", lead, class_="lead"), tag("nav", tag("ul", *items))
        ),
        _problems(problems),
        tag("main", *map(_block, blocks), _notes(notes), provenance),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        # No icon: a browser would otherwise ask for favicon.ico where the page is served.
        Markup('<link rel="icon" href="data:,">'),
        tag("style", Markup(CSS.read_text(encoding="utf-8"))),
    ]
    document = tag("html", tag("head", *head), tag("body", join(body, "\n")), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _problems(problems: Sequence[str]) -> Markup | None:
    if not problems:
        return None
    lines = (tag("li", problem) for problem in problems)
    return tag("div", tag("strong", "Left out"), tag("ul", *lines), class_="problems")


def _block(block: Block) -> Markup:
    parts = [tag("h2", block.title), tag("p", block.about, class_="about"), _grid(block.results)]
    for title, table, folded in block.tables:
        if folded:
            parts.append(tag("details", tag("summary", title), table))
        else:
            parts += [tag("h3", title), table]
    for title, drawings in block.more:
        if drawings:
            parts += [tag("h3", title), _grid(drawings)]
    return tag("section", join(parts, "\n"), id=block.anchor)


def _grid(drawings: Sequence[Drawing]) -> Markup | None:
    return tag("div", *map(_figure, drawings), class_="figures") if drawings else None


def _figure(drawing: Drawing) -> Markup:
    # The picture's own words are its text; the label says what kind of picture they belong to.
    picture = Markup(drawing.inline.replace("<svg ", '<svg role="img" ', 1))
    link = tag(
        "a",
        "Download SVG",
        href=drawing.data_url,
        download=f"{drawing.name}.svg",
        class_="download",
        aria_label=f"Download {drawing.title} as SVG",
    )
    caption = tag("figcaption", tag("strong", f"{drawing.title}. "), drawing.caption, " ", link)
    return tag("figure", tag("div", picture, class_="picture"), caption, id=drawing.name)


def _notes(notes: Sequence[str]) -> Markup | None:
    if not notes:
        return None
    lines = (tag("li", _code(note)) for note in notes)
    return tag("section", tag("h2", "Notes"), tag("ul", *lines, class_="notes"), id="notes")


def _code(text: str) -> Markup:
    """A note with what it has between backquotes set as code."""
    parts = re.split(r"`([^`]*)`", text)
    return join(tag("code", part) if i % 2 else part for i, part in enumerate(parts))
