"""From a config to text, to the hash of what changes the weights, and to a run directory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lcg import registry
from lcg.config.schema import ATTENTION_PARTS, COMPONENTS, Config


def to_tree(value: Any, identity: bool = False) -> Any:
    """A config as plain mappings, lists, numbers and strings, every field spelled out.

    identity: without fields that do not count (their metadata says so), users' classes by code.
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
    return rule == "always" or (rule == "unless default" and value != f.default)


def to_yaml(config: Config) -> str:
    """The whole config as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_tree(config)))


def identity(config: Config) -> str:
    """Eight hex digits of what changes the weights: task, model, optimiser, data, seed, budget.

    Of users' classes the code counts, wherever it is, with what it imports from beside it.
    Devices, workers, logging and the lengths evaluated are not part of it.
    """
    return _digest(_identity_tree(config))


def experiment_identity(config: Config) -> str:
    """As `identity`, without seed and learning rate: what runs of one method have in common."""
    return _digest(experiment_tree(config))


def experiment_tree(config: Config) -> dict[str, Any]:
    """The fields that `experiment_identity` is a hash of."""
    tree = _identity_tree(config)
    del tree["seed"], tree["optimizer"]["lr"]
    return tree


def _identity_tree(config: Config) -> dict[str, Any]:
    tree = to_tree(config, identity=True)
    kept = {key: tree[key] for key in (*COMPONENTS, "model", "data", "optimizer", "seed")}
    kept |= {key: tree["trainer"][key] for key in ("steps", "precision")}
    del kept["attention"]["backend"]
    for field in config.task.path_fields:
        del kept["task"][field]
    kept["model"]["encoder_layers"] = config.model.source_layers
    if not config.model.separate_source:
        del kept["model"]["encoder_layers"], kept["model"]["cross_position"]
    return kept


def parts(config: Config) -> dict[str, Any]:
    """Return the parts that a user's class may stand in, by kind: task, position, normalizer, …"""
    return {
        kind: getattr(config.attention if kind in ATTENTION_PARTS else config, kind)
        for kind in registry.HOMES
    }


def part_nodes(tree: dict[str, Any]) -> dict[str, Any]:
    """The mappings of these parts in a config's tree, by kind; what is no mapping is left out."""
    inner = tree["attention"] if isinstance(tree.get("attention"), dict) else {}
    nodes = {k: (inner if k in ATTENTION_PARTS else tree).get(k) for k in registry.HOMES}
    return {kind: node for kind, node in nodes.items() if isinstance(node, dict)}


def user_modules(config: Config) -> dict[str, registry.UserModule]:
    """The users' own modules that a config's parts come from, by kind."""
    found = {kind: registry.user_module_of(type(part)) for kind, part in parts(config).items()}
    return {kind: module for kind, module in found.items() if module is not None}


def source_digests(config: Config) -> dict[str, dict[str, str]]:
    """Name and hash of the code of each user's own class, by kind."""
    return {
        kind: {"name": registry.name_of(type(parts(config)[kind])), "digest": module.digest}
        for kind, module in user_modules(config).items()
    }


def task_tree(config: Config) -> dict[str, Any]:
    """The task's options, by which runs of one task know each other; a user's class by its code."""
    return to_tree(config.task, identity=True)


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def run_directory(config: Config) -> Path:
    """The directory of a run: below `runs`, by its name, or by its choices, seed and hash."""
    if config.name:
        return Path(config.runs) / config.name
    labels = [re.sub(r"[^\w.+-]+", "_", config.labels[g]) for g in COMPONENTS]
    return Path(config.runs) / f"{'-'.join(labels)}-s{config.seed}-{identity(config)}"
