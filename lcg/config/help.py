"""The text under each field of a dataclass, which is its help."""

from __future__ import annotations

import ast
import dataclasses
import inspect


def field_help(cls: type) -> dict[str, str]:
    """The text under each field of a dataclass, its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body[0].body
        for statement, below in zip(body, body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(statement, ast.AnnAssign) and is_text:
                texts[statement.target.id] = " ".join(str(below.value.value).split())
    return {f.name: texts.get(f.name, "") for f in dataclasses.fields(cls)}
