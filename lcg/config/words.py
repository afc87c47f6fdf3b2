"""From words and YAML files to one mapping with every component spelled out.

A value comes, later over earlier, from the experiment's `base`, its own file, a group's file
(`model=small` reads configs/model/small.yaml), and the `key=value` words. Choices of groups and
classes are made before fields are set, and no key may be given twice, so the order of words never
matters.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from lcg import registry
from lcg.config.errors import ConfigError, check_keys, find_class, one_line, options_called
from lcg.config.groups import choices, read_group
from lcg.config.help import as_text
from lcg.config.schema import ATTENTION_PARTS, COMPONENTS, SECTIONS, Config
from lcg.config.types import read_text

DEFAULTS = {group: getattr(Config, group) for group in COMPONENTS}


def read_words(words: list[str]) -> dict[str, str]:
    """`key=value` words as a mapping of dotted keys to texts.

    Raises ConfigError for another form, an empty value, or a key that is given twice.
    """
    said: dict[str, str] = {}
    for word in itertools.chain.from_iterable(map(_spelled_out, words)):
        key, equals, text = word.lstrip("-").partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value{_meant(word, words)}")
        if is_for_wandb(word):
            continue
        if not text:
            raise ConfigError(f"{key}= has no value; null stands for none")
        if not _is_utf8(word):
            raise ConfigError(f"{key}={text!r} is no UTF-8 text")
        key = key.removesuffix(".name")  # task.name=copy is task=copy
        if said.setdefault(key, text) != text:
            raise ConfigError(f"{key} is given twice, as {said[key]} and as {text}")
    return said


def _meant(word: str, words: list[str]) -> str:
    """`; did you mean …?` of a word without a key: a choice, or a key before its value."""
    following = words[words.index(word) + 1 :] if word in words else []
    if options_called(word) and following and "=" not in following[0]:
        return f"; did you mean {options_called(word)[0]}={following[0]}?"
    for group in ("experiment", *COMPONENTS):
        known = choices(group)
        if group in registry.HOMES:
            known = [*known, *registry.available(group)]
        if word in known:
            return f"; did you mean {group}={word}?"
    return f"; did you mean task={word}?" if ".py:" in word else ""


def _is_utf8(word: str) -> bool:
    """Tell text from bytes that are none, which Python reads as lone surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spelled_out(word: str) -> list[str]:
    """A word, or the `key=value` words of the forms in which `wandb agent` hands them over.

    These are JSON, a file of JSON, and `--section.field` for one that is true.
    """
    if word.startswith("{"):
        return _from_json(word, word)
    if word.endswith(".json") and "=" not in word:
        try:
            return _from_json(Path(word).read_text(encoding="utf-8"), word)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{word} cannot be read: {one_line(error)}") from None
    if word.startswith("--") and "=" not in word and "." in word:
        return [f"{word}=true"]
    return [word]


def _from_json(text: str, word: str) -> list[str]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{word[:60]} is no JSON: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{word[:60]}: expected keys and values")
    return [
        f"{key}={json.dumps(value) if isinstance(value, dict | list) else as_text(value)}"
        for key, value in values.items()
    ]


def is_for_wandb(word: str) -> bool:
    """Whether this is the `_wandb=…` that an agent adds to the arguments of a run queued again."""
    return word.lstrip("-").startswith("_wandb")


def tree_from_words(said: dict[str, str]) -> dict[str, Any]:
    """Everything that was chosen and set, as one mapping with each component spelled out."""
    said = dict(said)
    experiment = said.pop("experiment", None)
    check_keys(said)
    tree = _experiment(experiment) if experiment else {}
    labels = {}
    for group in COMPONENTS:
        chosen = _flow(said.pop(group)) if group in said else tree.get(group, DEFAULTS[group])
        tree[group], labels[group] = _expand(group, chosen)
    for section in SECTIONS:
        fields = tree.get(section, {})
        if section in said:
            fields = _overlay(fields, _section(section, _flow(said.pop(section))))
        tree[section] = fields
    for key in sorted(said, key=lambda key: key.count(".")):  # a class before its fields
        _put(tree, key, said[key])
    return tree | {"labels": labels}


def _experiment(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """An experiment's mapping, laid over that of the experiment it names as its `base`."""
    if name in above:
        raise ConfigError(f"experiment={above[0]}: base goes in a circle at {name}")
    tree = read_group("experiment", name)
    base = tree.pop("base", "")
    check_keys(tree, f"experiment={name}: ")
    if not isinstance(base, str):
        raise ConfigError(f"experiment={name}: base must be an experiment's name, got {base!r}")
    for group in COMPONENTS:
        if group in tree:
            tree[group] = _named(tree[group])
    for section in SECTIONS:
        tree[section] = _section(section, tree.get(section))
    return _overlay(_experiment(base, (*above, name)), tree) if base else tree


def _section(section: str, node: Any) -> dict[str, Any]:
    """The fields that an experiment or a word gives to a section, or those of a file it names."""
    if isinstance(node, str):
        return read_group(section, node)
    if not isinstance(node, dict | None):
        raise ConfigError(f"{section}: expected fields, got {node!r}")
    return node or {}


def _flow(text: str) -> Any:
    """`{a: 1}` as a mapping, any other text as it is."""
    return read_text(text) if text.startswith("{") else text


def _expand(group: str, node: Any) -> tuple[dict[str, Any], str]:
    """A component's mapping and label, from `asentmax` or `{name: asentmax, …}` with changes."""
    node = _named(node)
    if not isinstance(node, dict) or not isinstance(node.get("name", ""), str):
        raise ConfigError(f"{group}: expected a name, got {node!r}")
    name = node.get("name")
    if name in choices(group):
        changes = {key: value for key, value in node.items() if key != "name"}
        preset = read_group(group, name)
        return _overlay(_in_full(group, preset), _in_full(group, changes)), name
    if group == "attention" and name is None:
        node = _in_full(group, node)
        parts = [(p, node[p]) for p in node if p in ATTENTION_PARTS and isinstance(node[p], dict)]
        return node, "+".join(_label(kind, part.get("name", "?")) for kind, part in parts)
    elif group == "attention" and not any(mark in name for mark in ":./"):
        known = sorted({*choices(group), *registry.available("normalizer")})
        if name not in known:
            raise ConfigError(f"attention={name} is not known; {registry.nearest(name, known)}")
    kind = "normalizer" if group == "attention" else group
    return _in_full(group, node), _label(kind, name or group)


def _in_full(group: str, node: dict[str, Any]) -> dict[str, Any]:
    """An attention with its parts as mappings and `name` its normalizer's; others as they are."""
    if group != "attention":
        return node
    parts = {key: _named(v) if key in ATTENTION_PARTS else v for key, v in node.items()}
    if "name" in parts:
        parts = _overlay({"normalizer": {"name": parts.pop("name")}}, parts)
    return parts


def _named(node: Any) -> Any:
    """`log` as {name: log}."""
    return {"name": node} if isinstance(node, str) else node


def _label(kind: str, name: str) -> str:
    """The name that directories and tables show: of a user's class its own `name`."""
    if ":" not in str(name):
        return str(name)
    cls = find_class(kind, name)
    return vars(cls).get("name", cls.__name__)


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key; a named component replaces one of another name whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        renamed = both and "name" in value and value["name"] != old.get("name")
        merged[key] = _overlay(old, value) if both and not renamed else value
    return merged


def _put(tree: dict[str, Any], key: str, text: str) -> None:
    """Set one dotted key."""
    *path, last = key.split(".")
    node = tree
    for i, step in enumerate(path):
        if node.get(step) is None:
            node[step] = {}
        node = node[step]
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {'.'.join(path[: i + 1])} is a value, not a section")
    is_part = path == ["attention"] and last in ATTENTION_PARTS
    node[last] = _named(_flow(text)) if is_part else text
