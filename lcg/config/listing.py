"""What there is to choose from, and how two experiments differ."""

from __future__ import annotations

from typing import Any

from lcg import registry
from lcg.attention.backends import BACKENDS, usable
from lcg.config.groups import choices, first_comment, group_file, sweep_files
from lcg.config.help import as_text, first_sentence, summary
from lcg.config.identity import to_tree
from lcg.config.load import load_config

NOT_SET = "—"


def listing(kind: str) -> list[tuple[str, str]]:
    """Name and one line of text of every file of a group, or sweep, and every class of a kind."""
    files = sweep_files() if kind == "sweep" else {n: group_file(kind, n) for n in choices(kind)}
    found = {name: first_sentence(first_comment(file)) for name, file in files.items()}
    if kind in registry.HOMES:
        for name, cls in registry.available(kind).items():
            found[name] = found.get(name) or summary(cls)
    return sorted(found.items())


def backends() -> str:
    """Which backend runs what, as two markdown tables."""
    softmax = registry.available("normalizer")["softmax"]()
    normalizers = {name: cls.backends for name, cls in registry.available("normalizer").items()}
    positions = {n: usable(softmax, cls()) for n, cls in registry.available("position").items()}
    tables = ["\n".join(f"- `{name}`: {text}" for name, text in BACKENDS.items())]
    for title, runs in {"normalizer": normalizers, "position": positions}.items():
        lines = [f"| {title} | {' | '.join(BACKENDS)} |", "|---" + "|:---:" * len(BACKENDS) + "|"]
        for name, able in sorted(runs.items()):
            marks = ("yes" if backend in able else NOT_SET for backend in BACKENDS)
            lines.append(f"| `{name}` | {' | '.join(marks)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def difference(a: str, b: str) -> str:
    """How the configs of two experiments differ, a line per field. Raises ConfigError."""
    left, right = (_flat(to_tree(load_config([f"experiment={name}"]))) for name in (a, b))
    rows = [("", a, b)]
    sections = list(dict.fromkeys(key.partition(".")[0] for key in [*left, *right]))
    keys = sorted({*left, *right}, key=lambda key: (sections.index(key.partition(".")[0]), key))
    for key in keys:
        sides = (left.get(key, NOT_SET), right.get(key, NOT_SET))
        if sides[0] != sides[1]:
            rows.append((key, *sides))
    if len(rows) == 1:
        return f"{a} and {b} are the same"
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and their values as text; labels, which follow from the rest, left out."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict):
            flat |= {} if path == "labels" else _flat(value, path)
        else:
            flat[path.removesuffix(".name")] = as_text(value)
    return flat
