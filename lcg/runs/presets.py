"""Labels of attentions by their presets, used only if the config keeps what the preset sets.

    attention=topk attention.normalizer.k=4         topk, k=4
    attention=entmax15 attention.normalizer.alpha=2 entmax, alpha=2
    attention=asentmax attention.scaling=none       entmax

Presets are read as data, the user's in ./configs first; no class of a user is imported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lcg import registry
from lcg.config.identity import part_nodes
from lcg.config.load import config_folders, read_yaml
from lcg.config.schema import ATTENTION_PARTS
from lcg.runs.record import RunRecord

PRESET = re.compile(r"\w[\w+/-]*(\.\w[\w+/-]*)*")

Parts = dict[str, dict[str, Any]]  # kind -> name and options


def named(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Give all records of one config the same attention label, preferably a preset's name.

    If none of their labels fits, the label is the normalizer's name. A mixer's name replaces that
    of an attention.
    """
    records = list(records)
    ours = config_folders()[-1:]
    fitting = {record.labels["attention"] for record in records if label_fits(record)}
    name = min(fitting, key=lambda label: (not _file(label, ours), label), default="")
    name = name or str(_short(_parts(records[0])["normalizer"].get("name")))
    name = records[0].labels.get("mixer", name)
    return [replace(record, labels={**record.labels, "attention": name}) for record in records]


def label_fits(record: RunRecord) -> bool:
    """Tell whether a label fits the record's attention."""
    label, parts = record.labels["attention"], _parts(record)
    if not parts["normalizer"] or label == _short(parts["normalizer"].get("name")):
        return True  # it says no more than the normalizer; `changed` has what else differs
    preset = _preset(label)
    if preset is None:
        pieces = label.split("+")
        built_in = {name for kind in ATTENTION_PARTS for name in registry.available(kind)}
        return built_in.isdisjoint(pieces) or _names(parts).issuperset(pieces)
    return all(
        _short(value) == _short(parts[kind].get(key, value))
        for kind, fields in preset.items()
        for key, value in fields.items()
        if kind in parts
    )


def changed(record: RunRecord) -> list[str]:
    """Return the dotted fields in which an attention differs from the meaning of its label."""
    label, parts = record.labels["attention"], _parts(record)
    if not parts["normalizer"]:
        return []
    preset = _preset(label)
    if preset is None:
        pieces = label.split("+")
        if not _names(parts).issuperset(pieces):
            return []  # a class's own name for itself, or a preset that is not here
        preset = {k: {"name": p["name"]} for k, p in parts.items() if _short(p["name"]) in pieces}
    differing = []
    for kind, own in parts.items():
        meant = {"name": "none"} | preset.get(kind, {})
        if _short(meant["name"]) != _short(own.get("name")):
            differing.append(f"attention.{kind}.name")
            meant = {}
        cls = registry.available(kind).get(own.get("name"))  # None for a user's
        usual = ({f.name: f.default for f in dataclasses.fields(cls)} if cls else {}) | meant
        differing += [
            f"attention.{kind}.{key}"
            for key, value in own.items()
            if key != "name" and key in usual and value != usual[key]
        ]
    return differing


def _parts(record: RunRecord) -> Parts:
    nodes = part_nodes(record.config)
    return {"normalizer": {}} | {k: nodes[k] for k in ATTENTION_PARTS if "name" in nodes.get(k, {})}


def _names(parts: Parts) -> set[Any]:
    return {_short(part.get("name")) for part in parts.values()}


def _short(name: Any) -> Any:
    """Return a class's name without its module and the hash of its code; other values unchanged."""
    return name.partition("@")[0].rpartition(":")[2] if isinstance(name, str) else name


def _preset(label: str) -> Parts | None:
    """Return the content of a preset: the parts that it names and the options that it sets."""
    file = _file(label, config_folders())
    return None if file is None else _read(file)


def _file(label: str, folders: Iterable[Path]) -> Path | None:
    if len(label) > 128 or not PRESET.fullmatch(label):
        return None
    files = (folder / "attention" / f"{label}.yaml" for folder in folders)
    return next((file for file in files if file.is_file()), None)


@cache
def _read(file: Path) -> Parts | None:
    try:
        tree = read_yaml(file, resolve=False)
    except ValueError:
        return None
    tree = {"normalizer": tree["name"]} | tree if "name" in tree else tree
    parts = {kind: tree[kind] for kind in ATTENTION_PARTS if kind in tree}
    parts = {kind: {"name": v} if isinstance(v, str) else v for kind, v in parts.items()}
    return {kind: part for kind, part in parts.items() if isinstance(part, dict)}
