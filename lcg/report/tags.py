"""HTML from Python values: whatever is not markup already is escaped."""

from __future__ import annotations

from html import escape
from typing import Any

VOID = ("meta", "br", "col")


class Markup(str):
    """Text that is HTML and must not be escaped again."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """`<name attributes>children</name>`.

    Children that are no Markup are escaped, None is left out. An attribute's underscores become
    dashes (a trailing one is dropped: `class_`); None and False leave it out, True gives it no
    value.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Markup(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(children: Any, separator: str = "") -> Markup:
    """Children one after another, escaped unless they are Markup."""
    parts = (child for child in children if child is not None)
    return Markup(separator.join(map(safe, parts)))


def safe(child: Any) -> Markup:
    """A child as Markup."""
    return child if isinstance(child, Markup) else Markup(escape(str(child)))
