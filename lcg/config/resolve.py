"""From words to a config: YAML groups, then `key=value` overrides, then typed dataclasses.

A value comes, later over earlier, from the field's default, the experiment's file, a group's file
(`model=small` reads configs/model/small.yaml), and the overrides. Group choices are taken from the
command line first and fields after, so the order of arguments never matters.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lcg import registry
from lcg.attention import Attention
from lcg.config.schema import Config
from positional.base import Sizes


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line that says what to do."""


SECTIONS = {
    f.name: f.default_factory
    for f in dataclasses.fields(Config)
    if dataclasses.is_dataclass(f.default_factory)
}
COMPONENTS = ("task", "attention", "position")
GROUPS = ("experiment", *COMPONENTS, *SECTIONS)


def config_folders() -> list[Path]:
    """Where groups are looked up: the user's ./configs first, then the built-in ones."""
    here = Path(__file__).resolve().parents[1]
    built_in = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return [Path.cwd() / "configs", built_in]


def choices(group: str) -> list[str]:
    """Names of the files of a group, without .yaml."""
    found = set()
    for folder in config_folders():
        root = folder / group
        found |= {str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml")}
    return sorted(found)


def load_config(overrides: list[str]) -> Config:
    """The config that a list of `key=value` words describes.

    Raises ConfigError, in one line, for anything unknown, ill-typed or impossible.
    """
    chosen, fields = _split(overrides)
    tree: dict[str, Any] = {}
    if "experiment" in chosen:
        tree = _read_group("experiment", chosen.pop("experiment"))
    return _build(_merge_words(tree, chosen, fields))


def with_overrides(section: Any, words: list[str], path: str) -> Any:
    """A section of a config with `field=value` words laid over it, the section's name optional.

    Raises ConfigError.
    """
    tree = dataclasses.asdict(section)
    for word in words:
        key, equals, text = word.lstrip("-").removeprefix(f"{path}.").partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not of the form key=value")
        if key not in tree:
            raise ConfigError(f"{key} is not an option; {registry.nearest(key, list(tree))}")
        tree[key] = _value(text)
    return _dataclass(type(section), tree, path)


def config_from_tree(tree: dict[str, Any]) -> Config:
    """A config from a nested mapping, as read from a run's config.yaml."""
    return _build(tree)


def _split(overrides: list[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Group choices, and the fields in order."""
    chosen, fields = {}, []
    for word in overrides:
        key, equals, value = word.lstrip("-").partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value")
        if key.startswith("_wandb"):
            continue  # the W&B agent adds it to a requeued run
        if key in GROUPS:
            chosen[key] = value
        else:
            fields.append((key, value))
    return chosen, fields


def _merge_words(tree, chosen, fields):
    """Put group choices and then fields over the experiment's tree."""
    for group, name in chosen.items():
        if group in COMPONENTS:
            tree[group] = name
        else:
            tree[group] = _overlay(tree.get(group) or {}, _read_group(group, name))
    for group in COMPONENTS:
        if group in tree:
            tree[group] = _expand(group, tree[group])
    for key, text in fields:
        *path, last = key.split(".")
        node = tree
        for step in path:
            if step in COMPONENTS and node is tree and step not in node:
                node[step] = _expand(step, getattr(Config, step))
            if isinstance(node.get(step), str):  # attention.scaling=log attention.scaling.offset=0
                node[step] = {"name": node[step]}
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{key}: {step} is a value, not a section")
        node[last] = _value(text)
    return tree


def _value(text: str) -> Any:
    """A command-line value as YAML reads it; null may be spelled None, as W&B passes it."""
    if text in ("None", "null", "~"):
        return None
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]


def _expand(group: str, node: Any) -> dict[str, Any]:
    """A component's node as a mapping: `asentmax`, or `{name: asentmax, …}` with fields changed."""
    if isinstance(node, str):
        node = {"name": node}
    if not isinstance(node, dict):
        raise ConfigError(f"{group}: expected a name, got {node!r}")
    node = dict(node)
    label = node.get("label", str(node.get("name", "")).rpartition(":")[2])
    if "name" in node and node["name"] in choices(group):
        preset = _read_group(group, node.pop("name"))
        node = _overlay(preset, node)
    elif group == "attention" and "name" in node:
        node = _overlay({"normalizer": {"name": node.pop("name")}}, node)
    return node | {"label": label} if label else node


def _read_group(group: str, name: str) -> dict[str, Any]:
    for folder in config_folders():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            try:
                tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
            except Exception as error:
                raise ConfigError(f"{path}: {_first_line(error)}") from None
            if not isinstance(tree, dict):
                raise ConfigError(f"{path}: expected a mapping")
            return tree
    known = choices(group)
    hint = registry.nearest(name, known) if known else f"there are no files in configs/{group}"
    raise ConfigError(f"{group}={name} is not known; {hint}")


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key; a named component replaces one of another name whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        renamed = (
            isinstance(value, dict)
            and isinstance(old, dict)
            and ("name" in value and value["name"] != old.get("name"))
        )
        both = isinstance(value, dict) and isinstance(old, dict) and not renamed
        merged[key] = _overlay(old, value) if both else value
    return merged


def _build(tree: dict[str, Any]) -> Config:
    names = [f.name for f in dataclasses.fields(Config)]
    for key in tree:
        if key not in names:
            raise ConfigError(f"{key} is not an option; {registry.nearest(key, names)}")
    values: dict[str, Any] = {}
    labels = dict(tree.get("labels") or {})
    for group in COMPONENTS:
        node = _expand(group, tree.get(group) or getattr(Config, group))
        labels.setdefault(group, str(node.pop("label", node.get("name", group))))
        values[group] = _attention(node) if group == "attention" else _component(group, group, node)
    for section, cls in SECTIONS.items():
        values[section] = _dataclass(cls, tree.get(section) or {}, section)
    plain = {k: v for k, v in tree.items() if k not in values and k != "labels"}
    top = _dataclass(_Top, plain, "")
    config = Config(**values, **vars(top), labels=labels)
    _check(config)
    return config


@dataclass
class _Top:
    seed: int = 0
    name: str | None = None
    runs: str = "runs"


def _attention(node: dict[str, Any]) -> Attention:
    values: dict[str, Any] = {}
    for part in ("normalizer", "scaling", "output_norm"):
        if part in node:
            inner = node[part]
            inner = {"name": inner} if isinstance(inner, str) else inner
            values[part] = _component(part, f"attention.{part}", inner)
    known = [f.name for f in dataclasses.fields(Attention)]
    for key in node:
        if key not in known:
            raise ConfigError(f"attention.{key} is not an option; {registry.nearest(key, known)}")
    if "backend" in node:
        values["backend"] = str(node["backend"])
    try:
        return Attention(**values)
    except ValueError as error:
        raise ConfigError(f"attention: {error}") from None


def _component(kind: str, path: str, node: Any) -> Any:
    """The instance of a class that a mapping with its `name` and fields describes."""
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise ConfigError(f"{path}: expected a name and its fields, got {node!r}")
    try:
        cls = registry.find(kind, node["name"])
    except ValueError as error:
        raise ConfigError(_one_line(error)) from None
    fields = {key: value for key, value in node.items() if key != "name"}
    component = _dataclass(cls, fields, path)
    component.__dict__["_name"] = _lasting(node["name"])  # what config.yaml finds it by again
    return component


def _lasting(name: str) -> str:
    """A name that means the same from any folder: the path of a user's file made absolute."""
    place, colon, attribute = name.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{attribute}" if place.endswith(".py") else name


def _dataclass(cls: type, values: dict[str, Any], path: str) -> Any:
    """An instance of a dataclass from a mapping, each value converted to its field's type."""
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected fields, got {values!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    converted = {}
    for key, value in values.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in names:
            options = registry.nearest(key, names) if names else "it has no options"
            raise ConfigError(f"{where} is not an option; {options}")
        converted[key] = _convert(hints[key], value, where)
    try:
        schema = OmegaConf.structured(cls, flags={"readonly": False})
        merged = OmegaConf.to_object(OmegaConf.merge(schema, converted))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{path}.{key}".strip(".") + f": {_first_line(error)}") from None
    except (ValueError, TypeError) as error:
        message = _one_line(error)
        prefix = f"{path}: " if path else ""
        raise ConfigError(message if message.startswith(prefix) else prefix + message) from None
    return merged


NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


def _convert(hint: Any, value: Any, where: str) -> Any:
    """What YAML and a command line leave to be done: 64,128 as a list, 1e5 as an integer."""
    inner = [t for t in typing.get_args(hint) if t is not type(None)]
    optional = type(None) in typing.get_args(hint)
    if value is None or value == "None":
        if not optional:
            raise ConfigError(f"{where}: null is not possible here")
        return None
    kind = inner[0] if optional and len(inner) == 1 else hint
    if typing.get_origin(kind) in (list, tuple):
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
        elif not isinstance(value, list | tuple):
            value = [value]
        element = (typing.get_args(kind) or (str,))[0]
        return [_convert(element, part, where) for part in value]
    if kind is int and isinstance(value, float | str) and not isinstance(value, bool):
        if not NUMBER.match(str(value)) or float(value) != int(float(value)):
            raise ConfigError(f"{where}: {value!r} is not a whole number")
        return int(float(value))
    if kind is int and isinstance(value, bool):
        raise ConfigError(f"{where}: {value!r} is not a whole number")
    if kind is float and (isinstance(value, bool) or not _is_number(value)):
        raise ConfigError(f"{where}: {value!r} is not a number")
    if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
        options = [str(option) for option in typing.get_args(kind)]
        raise ConfigError(f"{where}={value} is not known; {registry.nearest(str(value), options)}")
    if kind is str and not isinstance(value, str):
        return str(value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or bool(NUMBER.match(str(value)))


def _check(config: Config) -> None:
    """What only the whole config shows: whether its parts can work together, before any work."""
    model = config.model
    sizes = Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model)
    try:
        config.position.check(sizes)
        config.attention.normalizer.check(sizes)
    except ValueError as error:
        raise ConfigError(_one_line(error)) from None
    lengths = {
        "data.min_length": [config.data.min_length],
        "data.max_length": [config.data.max_length],
        "validation.lengths": config.validation.lengths,
        "evaluation.lengths": config.evaluation.lengths,
    }
    for where, values in lengths.items():
        for length in values:
            try:
                config.task.check_length(length)
            except ValueError as error:
                raise ConfigError(f"{where}: {_one_line(error)}") from None
    if config.data.batch_size % config.trainer.devices:
        raise ConfigError(
            f"data.batch_size={config.data.batch_size} cannot be shared by "
            f"trainer.devices={config.trainer.devices}; use a multiple of it"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
