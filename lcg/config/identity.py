"""Text, hash and run directory of a config."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lcg import registry
from lcg.config.schema import ATTENTION_PARTS, COMPONENTS, Config


def to_tree(value: Any, identity: bool = False) -> Any:
    """Return a config as plain mappings, lists, numbers and strings, with every field.

    identity: without fields that are not part of the identity (by their metadata), users' classes
    by their code.
    """
    if dataclasses.is_dataclass(value):
        cls = type(value)
        fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
        tree = {f.name: to_tree(v, identity) for f, v in fields if not identity or _counts(f, v)}
        name = (identity and registry.identity_of(cls)) or registry.name_of(cls)
        return {"name": name} | tree if isinstance(name, str) and "name" not in tree else tree
    if isinstance(value, dict):
        return {key: to_tree(inner, identity) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_tree(inner, identity) for inner in value]
    return value


def _counts(f: dataclasses.Field, value: Any) -> bool:
    rule = f.metadata.get("identity", "always")
    made = f.default_factory is not dataclasses.MISSING
    default = f.default_factory() if made and rule == "unless default" else f.default
    return rule == "always" or (rule == "unless default" and value != default)


def to_yaml(config: Config) -> str:
    """Return the whole config as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_tree(config)))


def identity(config: Config) -> str:
    """Return eight hex digits of what affects the weights: task, model, optimiser, data, seed,
    steps.

    Users' classes count by their code, in any folder, with the modules that they import from the
    same folder. Devices, workers, logging and the lengths evaluated are not part of it.
    """
    return _digest(_identity_tree(config))


def experiment_identity(config: Config) -> str:
    """Like `identity`, without seed and learning rate: equal for all runs of one method."""
    return _digest(experiment_tree(config))


def experiment_tree(config: Config) -> dict[str, Any]:
    """Return the fields that `experiment_identity` hashes."""
    tree = _identity_tree(config)
    del tree["seed"], tree["optimizer"]["lr"]
    return tree


def _identity_tree(config: Config) -> dict[str, Any]:
    tree = to_tree(config, identity=True)
    counting = (*COMPONENTS, "model", "data", "optimizer", "seed")
    kept = {key: tree[key] for key in counting if key in tree}
    kept |= {key: tree["trainer"][key] for key in ("steps", "precision")}
    del kept["attention"]["backend"]
    for field in config.task.path_fields:
        del kept["task"][field]
    kept["model"]["encoder_layers"] = config.model.source_layers
    if not config.model.separate_source:
        del kept["model"]["encoder_layers"], kept["model"]["cross_position"]
    return kept


def parts(config: Config) -> dict[str, Any]:
    """Return the parts that may be users' classes, by key.

    Keys are task, position, normalizer, …, and position.pattern.0 and the like for the members of
    these.
    """
    by_key: dict[str, Any] = {}
    for kind in registry.HOMES:
        owner = config.attention if kind in ATTENTION_PARTS else config
        by_key |= _with_members(kind, getattr(owner, kind))
    for i, attention in enumerate(config.attention.pattern):
        for kind in ATTENTION_PARTS:
            by_key |= _with_members(f"pattern.{i}.{kind}", getattr(attention, kind))
    return by_key


def _with_members(key: str, part: Any) -> dict[str, Any]:
    """Return a part and its members, such as the encodings of groups of heads, by key."""
    by_key = {key: part}
    for f in dataclasses.fields(part):
        for own, member in _members(f"{key}.{f.name}", getattr(part, f.name, None)):
            if dataclasses.is_dataclass(member):
                by_key |= _with_members(own, member)
    return by_key


def _members(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [(f"{key}.{i}", member) for i, member in enumerate(value)]
    return [(key, value)]


def part_nodes(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the mappings of these parts in a config's tree, by key; others are left out."""
    inner = tree["attention"] if isinstance(tree.get("attention"), dict) else {}
    by_key: dict[str, Any] = {}
    for kind in registry.HOMES:
        by_key |= _with_inner(kind, (inner if kind in ATTENTION_PARTS else tree).get(kind))
    pattern = inner.get("pattern")
    for i, attention in enumerate(pattern if isinstance(pattern, list) else []):
        for kind in ATTENTION_PARTS if isinstance(attention, dict) else ():
            by_key |= _with_inner(f"pattern.{i}.{kind}", attention.get(kind))
    return by_key


def _with_inner(key: str, node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        return {}
    by_key = {key: node}
    for name, value in node.items():
        for own, inner in _members(f"{key}.{name}", value):
            if isinstance(inner, dict) and "name" in inner:
                by_key |= _with_inner(own, inner)
    return by_key


def kind_of(key: str) -> str:
    """Return the kind of the part at a key of `parts`: position for `position.pattern.0`."""
    return next(step for step in reversed(key.split(".")) if step in registry.HOMES)


def user_modules(config: Config) -> dict[str, registry.UserModule]:
    """Return the users' own modules of a config's parts, by kind."""
    modules = {kind: registry.user_module_of(type(part)) for kind, part in parts(config).items()}
    return {kind: module for kind, module in modules.items() if module is not None}


def source_digests(config: Config) -> dict[str, dict[str, str]]:
    """Return name and hash of the code of each user's own class, by kind."""
    return {
        kind: {"name": registry.name_of(type(parts(config)[kind])), "digest": module.digest}
        for kind, module in user_modules(config).items()
    }


def task_tree(config: Config) -> dict[str, Any]:
    """Return the task's options, which identify runs of one task; a user's class by its code."""
    return to_tree(config.task, identity=True)


def changes_between(own: Config, changed: Config) -> dict[str, Any]:
    """Return the options of position and attention that differ in `changed`, by dotted name.

    A user's class has a name and, as `source`, the hash of its code. A removed part is null. A
    training length or a head dimension that follows from the run's config is not a difference.
    """
    before, after = _changeable(own), _changeable(changed)
    length = int(own.task.token_length(own.data.max_length))
    filled_in = {"train_length": length, "head_dim": own.model.width_of_head}
    for key in list(after):
        name = key.rpartition(".")[2]
        if before.get(key) is None and after[key] == filled_in.get(name, ...):
            del after[key]
    changed_options = {key: value for key, value in after.items() if before.get(key, ...) != value}
    gone = (key for key in before if key not in after and key.endswith((".name", ".source")))
    return changed_options | dict.fromkeys(gone)


def _changeable(config: Config) -> dict[str, Any]:
    """Return the options of position and attention by dotted name, without the backend."""
    tree = to_tree(config)
    nodes = part_nodes(tree)
    for key, part in parts(config).items():
        nodes[key]["name"] = type(part).name
        if source := registry.identity_of(type(part)):
            nodes[key]["source"] = source.rpartition("@")[2]
    chosen = {key: tree[key] for key in ("position", "attention")}
    return {key: value for key, value in _leaves(chosen) if not key.endswith(".backend")}


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values in nested mappings and lists by dotted name."""
    inner = value.items() if isinstance(value, dict) else None
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = enumerate(value)
    if inner is None:
        is_json = not isinstance(value, float) or math.isfinite(value)
        yield key, value if is_json else str(value)
        return
    for name, item in inner:
        yield from _leaves(item, f"{key}.{name}".lstrip("."))


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def run_directory(config: Config) -> Path:
    """Return the directory of a run below `runs`: its name, or its choices, seed and hash."""
    if config.name:
        return Path(config.runs) / config.name
    labels = [re.sub(r"[^\w.+-]+", "_", config.labels[g]) for g in COMPONENTS if g in config.labels]
    return Path(config.runs) / f"{'-'.join(labels)}-s{config.seed}-{identity(config)}"
