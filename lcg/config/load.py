"""From words to a config: one mapping, then typed dataclasses, then whether they fit together."""

from __future__ import annotations

import dataclasses
import typing
from functools import partial
from typing import Any

from lcg import registry
from lcg.attention import Attention
from lcg.attention.backends import BACKENDS, check_backend
from lcg.config.compatibility import check_parts, check_task
from lcg.config.errors import (
    ConfigError,
    check_keys,
    find_class,
    hint_in,
    hint_of,
    suggestion,
    told_by,
)
from lcg.config.schema import ATTENTION_PARTS, COMPONENTS, PLAIN, SECTIONS, Config
from lcg.config.sizes import check_sizes, check_task_sizes
from lcg.config.types import build, convert
from lcg.config.words import read_words, tree_from_words
from lcg.positional.base import Sizes

DEFAULT_PART = {
    f.name: {"name": f.default_factory.name}
    for f in dataclasses.fields(Attention)
    if f.name in ATTENTION_PARTS
}


def load_config(words: list[str], fitting: bool = True) -> Config:
    """The config that a list of `key=value` words describes.

    Raises ConfigError, in one line, for anything unknown or ill-typed, and, when it must be
    `fitting`, for parts that cannot work together.
    """
    config = _build(tree_from_words(read_words(words)))
    if fitting:
        _check(config)
    return config


def load_task(words: list[str]) -> Any:
    """The task alone that words describe; the rest need not fit it. Raises ConfigError."""
    return _component("task", "task", tree_from_words(read_words(words))["task"])


def with_overrides(section: Any, words: list[str], path: str) -> Any:
    """A section of a config with `field=value` words laid over it, the section's name optional.

    Raises ConfigError.
    """
    said = {key.removeprefix(f"{path}."): text for key, text in read_words(words).items()}
    return build(type(section), dataclasses.asdict(section) | said, "")


def config_from_tree(tree: dict[str, Any]) -> Config:
    """A config from a nested mapping with every choice spelled out, as a run's config.yaml.

    Raises ConfigError.
    """
    check_keys(tree.keys() - {"labels"})
    for group in COMPONENTS:
        if not isinstance(tree.get(group), dict):
            raise ConfigError(f"{group}: expected a name and its fields, got {tree.get(group)!r}")
    config = _build(tree)
    _check(config)
    return config


def _build(tree: dict[str, Any]) -> Config:
    hints = typing.get_type_hints(Config)
    values = {
        "task": _component("task", "task", tree["task"]),
        "attention": _attention(tree["attention"]),
        "position": _component("position", "position", tree["position"]),
    }
    for section, cls in SECTIONS.items():
        fields = tree.get(section)
        values[section] = build(
            cls, {} if fields is None else fields, section, hint_in(section, cls)
        )
    for key in (*PLAIN, "labels"):
        if key in tree:
            values[key] = convert(hints[key], tree[key], key)
    with told_by(Config, ""):
        return Config(**values)


def _attention(node: dict[str, Any]) -> Attention:
    values = {}
    for part in ATTENTION_PARTS:
        inner = node.get(part, {})
        if isinstance(inner, dict):
            inner = DEFAULT_PART[part] | inner
        values[part] = _component(part, f"attention.{part}", inner)
    known = [f"attention.{f.name}" for f in dataclasses.fields(Attention)]
    for key in node:
        if f"attention.{key}" not in known:
            inner = [
                f"attention.{part}.{f.name}"
                for part in ATTENTION_PARTS
                for cls in registry.available(part).values()
                for f in dataclasses.fields(cls)
            ]
            hint = suggestion(f"attention.{key}", known, inner)
            raise ConfigError(f"attention.{key} is not an option{hint}")
    if "backend" in node:
        backends = typing.Literal["auto", *BACKENDS]
        values["backend"] = convert(backends, node["backend"], "attention.backend")
    with told_by(Attention, "attention"):
        return Attention(**values)


def _component(kind: str, path: str, node: Any) -> Any:
    """The instance of a class that a mapping with its `name` and fields describes."""
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise ConfigError(f"{path}: expected a name and its fields, got {node!r}")
    cls = find_class(kind, node["name"])
    fields = {key: value for key, value in node.items() if key != "name"}
    built = build(cls, fields, path, hint_of(kind, path, cls))
    if kind == "task":
        with told_by(cls, "task"):
            built.check_definition()
        with told_by(cls, ""):
            check_task_sizes(built)
    return built


def _check(config: Config) -> None:
    """What only the whole config shows: whether its parts can work together, before any work."""
    model, task, position = config.model, config.task, config.position
    sizes = Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model)
    with told_by(type(position), "position"):
        position.check(sizes)
    with told_by(type(config.attention.normalizer), "attention.normalizer"):
        config.attention.normalizer.check(sizes)
    with told_by(type(position), "position"):
        check_backend(config.attention.backend, config.attention.normalizer, position)
    with told_by(type(task), ""):
        check_parts(model, config.attention.normalizer, position)
        check_task(model, task)
    data, of_split = config.data, task.check_evaluation
    lengths = [
        ("data.min_length", [data.min_length], task.check_length),
        ("data.max_length", [data.max_length], task.check_length),
        ("validation.lengths", config.validation.lengths, partial(of_split, "validation")),
        ("evaluation.lengths", config.evaluation.lengths, partial(of_split, "test")),
    ]
    for where, values, check in lengths:
        for length in values:
            with told_by(type(task), where):
                check(length)
    with told_by(type(task), ""):
        check_sizes(config)
    batch, trainer = config.data.batch_size, config.trainer
    if batch % trainer.processes:
        nodes = f" trainer.nodes={trainer.nodes}" if trainer.nodes > 1 else ""
        raise ConfigError(
            f"data.batch_size={batch} cannot be shared by trainer.devices={trainer.devices}{nodes}"
            f"; use a multiple of {trainer.processes}"
        )
    if trainer.precision == "16-mixed" and trainer.accelerator == "cpu":
        raise ConfigError(
            "trainer.precision=16-mixed does not run with trainer.accelerator=cpu; "
            "use bf16-mixed or 32-true"
        )
