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
from lcg.config.resolve import COMPONENTS
from lcg.config.schema import Config


def to_tree(config: Config) -> dict[str, Any]:
    """The whole config as plain mappings, lists, numbers and strings, every field spelled out."""
    tree: dict[str, Any] = {}
    for f in dataclasses.fields(Config):
        tree[f.name] = _plain(getattr(config, f.name))
    return tree


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
        name = registry.name_of(type(value))
        return {"name": name} | fields if isinstance(name, str) and "name" not in fields else fields
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def to_yaml(config: Config) -> str:
    """The whole config as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_tree(config)))


def identity(config: Config) -> str:
    """Eight hex digits of what changes the weights: task, model, optimiser, data, seed, budget.

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
    tree = to_tree(config)
    kept = {key: tree[key] for key in ("task", "attention", "position", "model", "data")}
    kept |= {"optimizer": tree["optimizer"], "seed": tree["seed"]}
    kept |= {key: tree["trainer"][key] for key in ("steps", "precision")}
    del kept["attention"]["backend"], kept["data"]["workers"]
    for field in config.task.places:
        del kept["task"][field]
    kept["model"] |= {"encoder_layers": config.model.source_layers}
    del kept["model"]["unordered"]  # permits, and changes no weight
    if config.model.kind != "encoder_decoder":
        del kept["model"]["encoder_layers"], kept["model"]["cross_position"]
    return _without_folders(kept)


def _without_folders(node: Any) -> Any:
    """The tree with a user's own file named without its folder, which changes no weight."""
    if not isinstance(node, dict):
        return node
    kept = {key: _without_folders(value) for key, value in node.items()}
    if isinstance(kept.get("name"), str) and ".py:" in kept["name"]:
        kept["name"] = Path(kept["name"]).name
    return kept


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def run_directory(config: Config) -> Path:
    """Where this run lives: below `runs`, by its name, or by its choices, seed and hash."""
    if config.name:
        return Path(config.runs) / config.name
    labels = [re.sub(r"[^\w.+-]+", "_", config.labels[g]) for g in COMPONENTS]
    return Path(config.runs) / f"{'-'.join(labels)}-s{config.seed}-{identity(config)}"
