"""Help: every option with the text under its field, lists of choices, differences of
experiments."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import shutil
import textwrap
import typing
from pathlib import Path
from typing import Any, Literal

from lcg import registry
from lcg.attention.backends import BACKENDS, FORMS, OPTIONS, RUN_BY, usable
from lcg.config.errors import kinds
from lcg.config.identity import to_tree
from lcg.config.load import choices, group_file, load_config, sweep_files
from lcg.config.schema import COMPONENTS, PLAIN, SECTIONS, Config
from lcg.config.types import as_text, types_of_fields
from lcg.text import align

COLUMN = 34  # where the meanings begin
NOT_SET = "—"


def field_help(cls: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # a class that was made without a file
            continue
        body = ast.parse(inspect.cleandoc("\n" + source)).body[0].body
        for statement, below in itertools.pairwise(body):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(statement, ast.AnnAssign) and is_text:
                texts[statement.target.id] = " ".join(str(below.value.value).split())
    return {f.name: texts.get(f.name, "") for f in dataclasses.fields(cls)}


def summary(cls: type) -> str:
    """Return the first sentence of a class's own docstring; empty if it has none.

    A dataclass without one, as all have when Python runs without docstrings, has its signature
    instead.
    """
    text = vars(cls).get("__doc__") or ""
    if text.startswith(f"{cls.__name__}("):
        return ""
    paragraph = inspect.cleandoc(text).partition("\n\n")[0]
    return first_sentence(" ".join(paragraph.split()))


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop that a capital follows."""
    return re.split(r"(?<=[^.]\.) (?=[A-Z])", text, maxsplit=1)[0]


def describe(config: Config) -> str:
    """Return every option of this config: its value, its meaning, its default if that differs.

    The options of the chosen task, attention and position are those of their classes.
    """
    names = {name: registry.name_of(type(getattr(config, name))) for name in COMPONENTS}
    names["attention"] = config.labels["attention"]
    blocks = [_choices(config)]
    for name in (*COMPONENTS, *SECTIONS):
        title = f"{name} {names.get(name, '')}".strip()
        part = getattr(config, name)
        blocks.append([*_wrap(f"{title}: {summary(type(part))}"), *_fields(name, part)])
    return "\n\n".join("\n".join(block) for block in blocks)


def describe_fields(instance: Any, only: tuple[str, ...] = ()) -> str:
    """Return the options of one dataclass, or `only` those of these names."""
    return "\n".join(_fields("", instance, only))


def _choices(config: Config) -> list[str]:
    """Return the choices by name, and the options that are in no section."""
    own = "or your own, as package.module:Class or path/to/file.py:Class"
    names = {group: choices(group) for group in ("experiment", *COMPONENTS)}
    names |= {section: choices(section) for section in SECTIONS if choices(section)}
    for kind in ("task", "position", "mixer", "loop"):
        names[kind] = [*sorted({*names[kind], *registry.available(kind)}), own]
    names["attention"] += ["a normalizer", own]
    lines = ["choices (lcg list describes them)"]
    for group, known in names.items():
        label = config.labels.get(group, "")
        if not label and group in COMPONENTS:
            label = registry.name_of(type(getattr(config, group)))
        lines += _option(f"{group}={label}", ", ".join(known))
    return [*lines, *_fields("", config, PLAIN)]


def _fields(prefix: str, instance: Any, only: tuple[str, ...] = ()) -> list[str]:
    """Return each option of a dataclass; below one that is a class, the options of that class."""
    texts, types = field_help(type(instance)), types_of_fields(type(instance))
    lines = []
    for f in sorted(dataclasses.fields(instance), key=lambda f: f.kw_only):  # as in the signature
        if not f.init or (only and f.name not in only):
            continue
        text, kind, value = texts[f.name], types[f.name], getattr(instance, f.name)
        path = f"{prefix}.{f.name}".lstrip(".")
        if kind in kinds():
            text = f"{text} One of {', '.join(registry.available(kinds()[kind]))}."
            lines += _option(f"{path}={registry.name_of(type(value))}", text)
            lines += _fields(path, value)
            continue
        options = [str(option) for option in typing.get_args(kind)]
        explained = all(f"{option}:" in text for option in options)
        if typing.get_origin(kind) is Literal and not explained:
            text = f"{text} One of {', '.join(options)}."
        has_factory = f.default_factory is not dataclasses.MISSING
        default = f.default_factory() if has_factory else f.default
        if default is not dataclasses.MISSING and default != value:
            text = f"{text} (default {as_text(default)})"
        lines += _option(f"{path}={as_text(value)}", text)
    return lines


def _option(setting: str, text: str) -> list[str]:
    """Return `path=value` and its meaning, in two columns."""
    left = f"  {setting}"
    lines = _wrap(text, " " * COLUMN)
    if len(left) + 2 > COLUMN or not lines:
        return [left, *lines]
    return [left.ljust(COLUMN) + lines[0].lstrip(), *lines[1:]]


def _wrap(text: str, indent: str = "") -> list[str]:
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns))
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


# ---- what there is to choose from, and how two experiments differ


def listing(kind: str) -> list[tuple[str, str]]:
    """Return name and one line of text of every file of a group, or sweep, and every class of a
    kind."""
    files = sweep_files() if kind == "sweep" else {n: group_file(kind, n) for n in choices(kind)}
    texts = {name: first_sentence(_first_comment(file)) for name, file in files.items()}
    if kind in registry.HOMES:
        for name, cls in registry.available(kind).items():
            texts[name] = texts.get(name) or summary(cls)
    return sorted(texts.items())


def backends() -> str:
    """Return the tables of which backend supports what, in Markdown."""
    softmax = registry.available("normalizer")["softmax"]()
    tables = {
        "form of bias": {
            f"`{form}`: {text}": [name for name, forms in RUN_BY.items() if form in forms]
            for form, text in FORMS.items()
        },
        "normalizer": {
            f"`{name}`": cls.backends for name, cls in registry.available("normalizer").items()
        },
        "output norm": {
            f"`{name}`": cls.backends for name, cls in registry.available("output_norm").items()
        },
        "option": {f"`attention.{name}`": able for name, able in OPTIONS.items()},
        "position": {
            f"`{name}`": usable(softmax, cls())
            for name, cls in registry.available("position").items()
        },
    }
    blocks = ["\n".join(f"- `{name}`: {text}" for name, text in BACKENDS.items())]
    for title, rows in tables.items():
        lines = [f"| {title} | {' | '.join(BACKENDS)} |", "|---" + "|:---:" * len(BACKENDS) + "|"]
        for subject, able in rows.items():
            marks = ("yes" if backend in able else NOT_SET for backend in BACKENDS)
            cells = [subject.replace("|", r"\|"), *marks]
            lines.append(f"| {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def difference(a: str, b: str) -> str:
    """Return the fields in which two experiments differ, one per line. Raises ConfigError."""
    left, right = (_flat(to_tree(load_config([f"experiment={name}"]))) for name in (a, b))
    sections = list(dict.fromkeys(key.partition(".")[0] for key in [*left, *right]))
    keys = sorted({*left, *right}, key=lambda key: (sections.index(key.partition(".")[0]), key))
    rows = [(key, left.get(key, NOT_SET), right.get(key, NOT_SET)) for key in keys]
    rows = [row for row in rows if row[1] != row[2]]
    if not rows:
        return f"{a} and {b} are the same"
    return "\n".join(line.rstrip() for line in align([("", a, b), *rows], justify=str.ljust))


def _first_comment(path: Path) -> str:
    """Return the first comment of a file, which describes it, as one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("#").strip() for line in comment)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return dotted keys and their values as text, without labels, which follow from the rest."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict):
            flat |= {} if path == "labels" else _flat(value, path)
        else:
            flat[path.removesuffix(".name")] = as_text(value)
    return flat
