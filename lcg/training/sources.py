"""The code that made a run, as a hash; nothing here imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lcg import registry
from lcg.config import Config

# What decides which weights and which numbers come out; not the command line, tables or plots.
CODE = (
    *("lcg/tasks", "lcg/positional", "lcg/config/kinds.py"),
    *(f"lcg/{part}" for part in ("attention", "entmax", "models")),
    *(f"lcg/{part}" for part in ("training", "evaluation", "keeping")),
)


def code_digest(config: Config) -> str:
    """Hash of every source file that made a run, a user's own included."""
    root = Path(__file__).resolve().parents[2]
    files = [path for part in CODE for path in _sources(root / part)]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    for path in sorted(user_sources(config)):
        digest.update(b"\0user\0" + Path(path).read_bytes())
    return digest.hexdigest()[:12]


def _sources(part: Path) -> Iterable[Path]:
    """The files of a room that a run imports; programs that make corpora are none of them."""
    if part.is_file():
        return [part]
    programs = part / "corpora"
    return [
        path for path in part.rglob("*.py") if path.parent != programs or path.stem == "numbers"
    ]


def user_sources(config: Config) -> dict[str, str]:
    """Files of the user's own classes, with a hash of each."""
    attention = config.attention
    parts = (config.task, config.position, attention.normalizer, attention.scaling)
    sources = {}
    for part in (*parts, attention.output_norm):
        path = registry.source_file(type(part))
        if path is not None:
            sources[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return sources
