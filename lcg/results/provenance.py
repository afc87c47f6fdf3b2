"""provenance.json of a run, as everybody reads it."""

import json
from pathlib import Path
from typing import Any

from lcg.results.record import check_json

PROVENANCE = "provenance.json"
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
    """Read provenance.json: empty if missing or damaged, without what is of a wrong type."""
    try:
        found = json.loads((directory / PROVENANCE).read_text(encoding="utf-8"))
        check_json(found)
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    kept = {name: v for name, v in found.items() if isinstance(v, KINDS.get(name, object))}
    if not all(isinstance(i, str) for i in kept.get("wandb_ids", [])):
        del kept["wandb_ids"]
    return kept
