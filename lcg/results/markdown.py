"""Tables as Markdown, padded to read well unrendered."""

from __future__ import annotations

import re

from lcg.results.document import Document
from lcg.results.tables import Entry, Table

TAG = re.compile(r"<(?=[A-Za-z/!?])")  # where HTML would begin


def markdown(document: Document) -> str:
    """The document, ending in a newline."""
    parts = []
    for section in document.sections:
        parts.append(f"## {_escape(section.title)}")
        if section.about:
            parts.append(section.about)
        for heading, table in section.tables:
            parts += [f"### {_escape(heading)}", markdown_table(table)]
    if document.notes:
        parts += ["## Notes", "\n".join(f"- {_escape(note)}" for note in document.notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """One table: the first column left, the others right."""
    return aligned(list(table.header), [[_text(entry) for entry in row] for row in table.rows])


def aligned(header: list[str], rows: list[list[str]]) -> str:
    """A table of texts."""
    body = [[_escape(text) for text in row] for row in [header, *rows]]
    widths = [max(4, *map(len, column)) for column in zip(*body, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [body[0], rules, *body[1:]]:
        padded = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        padded[0] = row[0].ljust(widths[0])
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)


def _text(entry: Entry) -> str:
    return f"**{entry.whole}**" if entry.strong else entry.whole


def _escape(text: str) -> str:
    """Keep a reason or a label from breaking out of its table cell or line, or being HTML."""
    text = " ".join(text.split()).replace("|", "\\|")
    parts = re.split(r"(`[^`]*`)", text)  # code is shown as it stands
    return "".join(p if p.startswith("`") else re.sub(TAG, r"\\<", p) for p in parts)
