"""Provenance of a result: command, versions, code, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg.config import Config, identity
from lcg.config.identity import source_digests
from lcg.log import log
from lcg.runs.files import PROVENANCE, write_atomic
from lcg.runs.record import read_mapping
from lcg.user_source import COMMON

if TYPE_CHECKING:
    import torch


def write(config: Config, directory: Path, device: torch.device, resumed: bool) -> dict[str, Any]:
    """Write provenance.json and return its content; log a note if a run resumes with different
    code."""
    import torch

    before = read_provenance(directory)
    code, earlier = code_digest(), before.get("earlier_code", []) if resumed else []
    if resumed and before.get("code") != code:
        earlier = [*earlier, before.get("code")]
        log.warning(f"note: {directory} resumes with different code than before; see {PROVENANCE}")
    program = Path(sys.argv[0]).name
    facts = {
        "command": ["lcg" if program == "__main__.py" else program, *sys.argv[1:]],
        "code": code,
        "user_sources": source_digests(config),
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in COMMON},
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "earlier_code": earlier,
        "identity": identity(config),
    }
    return _save(directory, facts, _wandb_ids(before))


def adopt_wandb_id(directory: Path) -> bool:
    """Record the W&B run that an agent assigned to a finished run; return whether it is new."""
    facts = read_provenance(directory)
    ids = _wandb_ids(facts)
    if ids == facts.get("wandb_ids"):
        return False
    _save(directory, facts, ids)
    return True


def _save(directory: Path, facts: dict[str, Any], wandb_ids: list[str]) -> dict[str, Any]:
    facts = facts | {"wandb_ids": wandb_ids, "wandb_id": wandb_ids[-1]}
    write_atomic(directory / PROVENANCE, json.dumps(facts, indent=1) + "\n")
    return facts


def _wandb_ids(before: dict[str, Any]) -> list[str]:
    """Return all W&B ids that a run has had, the present one last.

    The agent assigns the id, and may assign another to a run that resumes after preemption.
    """
    ids = before.get("wandb_ids") or [before.get("wandb_id") or secrets.token_hex(4)]
    present = os.environ.get("WANDB_RUN_ID")
    if present is None:
        return ids
    ids = ids if "wandb_id" in before else []
    return [*(i for i in ids if i != present), present]


def package_version(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Return commit and dirty flag of the checkout that the code runs from; None outside a
    checkout."""
    checkout = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        command = ["git", "-C", str(checkout), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout:
            return None  # installed inside somebody else's checkout
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


# What decides which weights and which numbers come out; not the command line, tables or plots.
CODE = (
    *("lcg/tasks", "lcg/positional", "lcg/config/compatibility.py"),
    *(f"lcg/{part}" for part in ("attention", "entmax", "models")),
    *(f"lcg/{part}" for part in ("training", "evaluation", "runs")),
)


def code_digest() -> str:
    """Return a hash of every source file of lcg that affects a run, without users' own."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    folders = [root / part for part in CODE]
    files = [
        path for part in folders for path in ([part] if part.is_file() else part.rglob("*.py"))
    ]
    for path in sorted(files):
        if path.parent.name != "corpora" or path.stem == "numbers":  # others make no run, but text
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


KINDS = {
    "command": list,
    "code": str,
    "earlier_code": list,
    "identity": str,
    "user_sources": dict,
    "git": dict | None,
    "packages": dict,
    "wandb_id": str,
    "wandb_ids": list,
    "device": str,
    "device_name": str | None,
}


def read_provenance(directory: Path) -> dict[str, Any]:
    """Read provenance.json: empty if missing or damaged, without values of a wrong type."""
    content = read_mapping(directory / PROVENANCE)
    kept = {name: v for name, v in content.items() if isinstance(v, KINDS.get(name, object))}
    if not all(isinstance(i, str) for i in kept.get("wandb_ids", [])):
        del kept["wandb_ids"]
    return kept
