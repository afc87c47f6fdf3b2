"""The code that made a run, as a hash; nothing here imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

# What decides which weights and which numbers come out; not the command line, tables or plots.
CODE = (
    *("lcg/tasks", "lcg/positional", "lcg/config/kinds.py"),
    *(f"lcg/{part}" for part in ("attention", "entmax", "models")),
    *(f"lcg/{part}" for part in ("training", "evaluation", "keeping")),
)


def code_digest() -> str:
    """Hash of every source file of lcg that makes a run; users' own are in its identity."""
    root = Path(__file__).resolve().parents[2]
    files = [path for part in CODE for path in _sources(root / part)]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(part: Path) -> Iterable[Path]:
    """The files of a room that a run imports; programs that make corpora are none of them."""
    if part.is_file():
        return [part]
    programs = part / "corpora"
    return [
        path for path in part.rglob("*.py") if path.parent != programs or path.stem == "numbers"
    ]
