"""The loader: from overrides and YAML files to one mapping, to dataclasses, to checked configs.

Later values override earlier ones: those of the experiment's `base`, of its own file, of a group's
file (`model=small` reads configs/model/small.yaml), and of the `key=value` overrides. Groups and
classes are chosen before fields are set, and no key may be given twice, so the order of overrides
does not matter. The relative path of a user's file (`name: ./mine.py:Mine`) is relative to the
current folder, in a YAML file as on the command line.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from lcg import registry
from lcg.attention.mixers import AttentionMixer
from lcg.attention.scalings import QueryScaling
from lcg.config.compatibility import check_config, check_definition
from lcg.config.errors import (
    ConfigError,
    check_keys,
    config_errors,
    find_class,
    one_line,
    options_called,
)
from lcg.config.identity import changes_between, kind_of, part_nodes, parts, to_tree
from lcg.config.schema import ATTENTION_PARTS, COMPONENTS, LABELLED, SECTIONS, Config
from lcg.config.types import as_text, build, convert, read_text
from lcg.positional.base import PositionEncoding
from lcg.positional.groups import Heads, Layers
from lcg.positional.nope import NoPE
from lcg.system import require_file

DEFAULTS = {
    "task": "copy",
    "attention": "softmax",
    "position": "nape",
    "mixer": "attention",
    "loop": "fixed",
}
GROUPS = re.compile(r"[^\[+]+:\d+(\+[^+]+:\d+)+")


def load_config(overrides: list[str], fitting: bool = True) -> Config:
    """Return the config that a list of `key=value` overrides describes.

    Raises ConfigError, in one line, for an unknown key or name or a wrong type, and, if it must be
    `fitting`, for incompatible parts.
    """
    config = _build(_tree(read_overrides(overrides)))
    if config.labels["position"] == config.position.name:  # and not a file's
        config.labels["position"] = label_of(config.position)
    if fitting:
        check_config(config)
        for words in config.evaluation.also:
            try:
                with_changes(config, words.split())
            except ConfigError as error:
                raise ConfigError(f"evaluation.also={words}: {error}") from error.__cause__
    return config


def load_task(overrides: list[str]) -> Any:
    """Return only the task that overrides describe; the rest need not fit it. Raises
    ConfigError."""
    task = convert(registry.base_class("task"), _tree(read_overrides(overrides))["task"], "task")
    check_definition(task)
    return task


def with_overrides(section: Any, overrides: list[str], path: str) -> Any:
    """Return a section of a config with `field=value` overrides; the section's name is optional.

    Raises ConfigError.
    """
    values = {key.removeprefix(f"{path}."): v for key, v in read_overrides(overrides).items()}
    return build(type(section), dataclasses.asdict(section) | values, "")


def config_from_tree(tree: dict[str, Any]) -> Config:
    """Return a config from a nested mapping with every field, such as a run's config.yaml.

    Raises ConfigError.
    """
    check_keys(tree.keys() - {"labels"})
    if isinstance(model := tree.get("model"), dict) and "unordered" in model:  # of older runs
        tree = tree | {"model": {"allow_no_position": model["unordered"]} | model}
        del tree["model"]["unordered"]
    config = _build(tree)
    check_config(config)
    return config


# ---- overrides: `key=value` as texts


def read_overrides(words: list[str]) -> dict[str, str]:
    """Return `key=value` words as a mapping of dotted keys to texts.

    Raises ConfigError for another form, an empty value, or a key that is given twice.
    """
    values: dict[str, str] = {}
    for word in itertools.chain.from_iterable(map(_spelled_out, words)):
        key, equals, text = word.lstrip("-").partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value{_meant(word, words)}")
        if is_for_wandb(word):
            continue
        if not text:
            raise ConfigError(f"{key}= has no value; write null for none")
        if any("\ud800" <= c <= "\udfff" for c in word):  # for Python, bytes that are no text
            raise ConfigError(f"{key}={text!r} is not UTF-8 text")
        key = key.removesuffix(".name")  # task.name=copy is task=copy
        if values.setdefault(key, text) != text:
            raise ConfigError(f"{key} is given twice, as {values[key]} and as {text}")
    return values


def is_for_wandb(word: str) -> bool:
    """True for the `_wandb=…` that an agent adds to the arguments of a run queued again."""
    return word.lstrip("-").startswith("_wandb")


def _meant(word: str, words: list[str]) -> str:
    """Return `; did you mean …?` for a word without a key: a choice, or a key before its value."""
    following = [*words, "="][words.index(word) + 1] if word in words else "="
    keys = [f"{option}={following}" for option in options_called(word) if "=" not in following]
    for group in ("experiment", *COMPONENTS):
        classes = registry.available(group) if group in registry.HOMES else ()
        keys += [f"{group}={word}"] if word in (*choices(group), *classes) else []
    keys += [f"task={word}"] if ".py:" in word else []
    return f"; did you mean {keys[0]}?" if keys else ""


def _spelled_out(word: str) -> list[str]:
    """Return a word, or the `key=value` words of the forms that `wandb agent` passes.

    These are JSON, a file of JSON, and `--section.field` for a true value.
    """
    is_file = word.endswith(".json") and "=" not in word
    if not is_file and not word.startswith("{"):
        is_flag = word.startswith("--") and "=" not in word and "." in word
        return [f"{word}=true" if is_flag else word]
    try:
        values = json.loads(Path(word).read_text(encoding="utf-8") if is_file else word)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{word} cannot be read: {one_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{word[:60]} is not JSON: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{word[:60]}: expected keys and values")
    return [
        f"{key}={json.dumps(value) if isinstance(value, dict | list) else as_text(value)}"
        for key, value in values.items()
    ]


# ---- YAML files: configs/GROUP/NAME.yaml, the user's and the built-in ones


def config_folders() -> list[Path]:
    """Return the folders of groups: the user's ./configs first, then the built-in ones."""
    return [Path.cwd() / "configs", Path(__file__).resolve().parents[1] / "configs"]


def choices(group: str) -> list[str]:
    """Return the names of the files of a group, without .yaml."""
    roots = [folder / group for folder in config_folders()]
    files = [(root, file) for root in roots for file in root.rglob("*.yaml")]
    return sorted({file.relative_to(root).with_suffix("").as_posix() for root, file in files})


def sweep_files() -> dict[str, Path]:
    """Return the sweep files by name: the user's in ./sweeps, and the built-in ones."""
    folders = [folder.parent / "sweeps" for folder in reversed(config_folders())]
    files = {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
    return dict(sorted(files.items()))


def group_file(group: str, name: str) -> Path:
    """Return the file of a choice. Raises ConfigError for an unknown name."""
    for folder in config_folders():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            return path
    known = choices(group)
    hint = registry.nearest(name, known) if known else f"there are no files in configs/{group}"
    raise ConfigError(f"{group}={name} is not known; {hint}")


def read_yaml(path: Path, resolve: bool = True) -> dict[str, Any]:
    """Return the mapping in a YAML file, with `${…}` kept unless `resolve`.

    Raises ConfigError, naming file and line.
    """
    try:
        facts = path.stat()
        loaded = _load(path.absolute(), facts.st_mtime_ns, facts.st_size)
        tree = OmegaConf.to_container(loaded, resolve=resolve)
        if not isinstance(tree, dict):
            raise ConfigError("expected a mapping of keys to values")
    except Exception as error:
        raise ConfigError(f"{path}: {_problem(error)}".replace(": line ", ":", 1)) from None
    return tree


@lru_cache(maxsize=64)
def _load(path: Path, changed: int, length: int) -> Any:
    """Read a file again only when it has changed: every run of a grid reads the same files."""
    read_node(path)
    return OmegaConf.load(path)


BYTES = 10**6
VALUES = 10_000
DEPTH = 50


def read_node(path: Path, loader: type = yaml.SafeLoader) -> yaml.Node | None:
    """Return the graph of a YAML file, anchors not expanded; None for an empty file.

    A few lines of anchors that name each other can expand to more values than any memory holds, and
    an anchor that contains itself is nested without end. Raises ConfigError, in one line without
    the file's name, for a file of more than BYTES, with more than VALUES values or nested more than
    DEPTH deep, that is not YAML, or that cannot be read.
    """
    try:
        require_file(path)
        if path.stat().st_size > BYTES:
            raise ConfigError(f"the file has more than {BYTES:,} bytes")
        node = yaml.compose(path.read_text(encoding="utf-8"), loader)
        if node is not None and any(itertools.islice(_values(node), VALUES, None)):
            raise ConfigError(f"it expands to more than {VALUES:,} values")
        return node
    except (OSError, RecursionError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(_problem(error)) from None


def _problem(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    if isinstance(error, RecursionError):
        return f"it is nested more than {DEPTH} deep, or an anchor refers to itself"
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return line + (getattr(error, "problem", None) or one_line(error))


def _values(node: yaml.Node, depth: int = 0) -> Iterator[bool]:
    """Yield once for each value of a node, and for each place at which it is used."""
    if depth > DEPTH:
        raise RecursionError
    yield True
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        inner = itertools.chain.from_iterable(inner)
    for part in inner:
        yield from _values(part, depth + 1)


# ---- one mapping of all that was chosen and set, with each component spelled out


def _tree(values: dict[str, str]) -> dict[str, Any]:
    experiment = values.pop("experiment", None)
    check_keys(values)
    tree = DEFAULTS | (_experiment(experiment) if experiment else {})
    labels = {}
    for group in COMPONENTS:
        chosen = _flow(values.pop(group)) if group in values else tree[group]
        tree[group], label = _expand(group, chosen)
        if group in LABELLED or label != DEFAULTS[group]:
            labels[group] = label
    for section in SECTIONS:
        if section in values:
            chosen = _section(section, _flow(values.pop(section)))
            tree[section] = _overlay(tree.get(section, {}), chosen)
    for key in sorted(values, key=lambda key: key.count(".")):  # a class before its fields
        _put(tree, key, values[key])
    return tree | {"labels": labels}


def _experiment(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an experiment's mapping, merged over that of its `base`."""
    if name in above:
        raise ConfigError(f"experiment={above[0]}: base leads back to {name}")
    tree = read_yaml(group_file("experiment", name))
    base = tree.pop("base", "")
    check_keys(tree, f"experiment={name}: ")
    if not isinstance(base, str):
        raise ConfigError(f"experiment={name}: base must be an experiment's name, got {base!r}")
    for key, node in tree.items():
        tree[key] = _section(key, node) if key in SECTIONS else node
        tree[key] = _named(node) if key in COMPONENTS else tree[key]
    return _overlay(_experiment(base, (*above, name)), tree) if base else tree


def _section(section: str, node: Any) -> dict[str, Any]:
    """Return the fields that an experiment or an override gives to a section, or those of a
    named file."""
    if isinstance(node, str):
        return read_yaml(group_file(section, node))
    if not isinstance(node, dict | None):
        raise ConfigError(f"{section}: expected fields, got {node!r}")
    return node or {}


def _flow(text: str) -> Any:
    """Return `{a: 1}` as a mapping, `[a, b]` as a list, any other text unchanged."""
    return read_text(text) if text.startswith(("{", "[")) else text


def _named(node: Any) -> Any:
    """Return `log` as {name: log}."""
    return {"name": node} if isinstance(node, str) else node


def _expand(group: str, node: Any) -> tuple[dict[str, Any], str]:
    """Return a component's mapping and label, from `asentmax` or `{name: asentmax, …}` with
    changes."""
    if group in ("position", "attention") and isinstance(node, list) and node:
        return _pattern(group, node)
    if group == "position" and isinstance(node, str) and GROUPS.fullmatch(node):
        return _head_groups(node)
    node = _named(node)
    if not isinstance(node, dict) or not isinstance(node.get("name", ""), str):
        raise ConfigError(f"{group}: expected a name, got {node!r}")
    if "inner" in node:
        node = node | {"inner": _expand(group, node["inner"])[0]}
    name, in_full = node.get("name"), _attention if group == "attention" else dict
    if name in choices(group):
        changes = {key: value for key, value in node.items() if key != "name"}
        return _overlay(in_full(read_yaml(group_file(group, name))), in_full(changes)), name
    node = in_full(node)
    if group != "attention":
        return node, _label(group, name or group)
    if name is None:
        parts = [(p, node[p]) for p in node if p in ATTENTION_PARTS and isinstance(node[p], dict)]
        return node, "+".join(_label(kind, part.get("name", "?")) for kind, part in parts)
    known = sorted({*choices(group), *registry.available("normalizer")})
    if name not in known and not any(mark in name for mark in ":./"):
        raise ConfigError(f"attention={name} is not known; {registry.nearest(name, known)}")
    return node, _label("normalizer", name)


def _pattern(group: str, members: list[Any]) -> tuple[dict[str, Any], str]:
    """Return the mapping and label of a choice for each layer: [rope, rope, nope]."""
    nodes, labels = zip(*(_expand(group, member) for member in members), strict=True)
    if group == "position":
        return {"name": "layers", "pattern": list(nodes)}, ",".join(labels)
    return nodes[0] | {"pattern": list(nodes)}, ",".join(labels)


def _head_groups(text: str) -> tuple[dict[str, Any], str]:
    """Return the mapping and label of an encoding for each group of heads: alibi:4+nope:4."""
    members = [member.rpartition(":") for member in text.split("+")]
    nodes, labels = zip(*(_expand("position", name) for name, *_ in members), strict=True)
    sizes = [int(size) for *_, size in members]
    label = "+".join(f"{name}:{size}" for name, size in zip(labels, sizes, strict=True))
    return {"name": "heads", "groups_of": list(nodes), "sizes": sizes}, label


def _attention(node: dict[str, Any]) -> dict[str, Any]:
    """Return an attention with its parts as mappings and `name` its normalizer's."""
    parts = {key: _named(v) if key in ATTENTION_PARTS else v for key, v in node.items()}
    if "name" in parts:
        parts = _overlay({"normalizer": {"name": parts.pop("name")}}, parts)
    return parts


def _label(kind: str, name: str) -> str:
    """Return the name that directories and tables show: the `name` of a user's class."""
    if ":" not in str(name):
        return str(name)
    cls = find_class(kind, name)
    return vars(cls).get("name", cls.__name__)


def label_of(position: PositionEncoding) -> str:
    """Return the label of an encoding: `randomised alibi` for one around another, `window` for one
    around nothing.
    """
    match position:
        case Heads():
            pairs = zip(position.groups_of, position.sizes, strict=True)
            return "+".join(f"{label_of(own)}:{size}" for own, size in pairs)
        case Layers():
            return ",".join(map(label_of, position.pattern))
    inner = getattr(position, "inner", None)
    named = isinstance(inner, PositionEncoding) and not isinstance(inner, NoPE)
    within = [label_of(inner)] if named else []
    return " ".join([position.name, *within])


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key; a named component replaces one of another name whole."""
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
    for i, step in enumerate(path):
        if isinstance(tree, list):
            if not step.isdecimal() or int(step) >= len(tree):
                raise ConfigError(f"{key}: {'.'.join(path[:i])} has members 0 to {len(tree) - 1}")
            step = int(step)
        elif tree.get(step) is None:
            tree[step] = {}
        if path[0] in COMPONENTS and isinstance(tree[step], str):
            tree[step] = _named(tree[step])
        tree = tree[step]
        if not isinstance(tree, dict | list):
            raise ConfigError(f"{key}: {'.'.join(path[: i + 1])} is a value, not a section")
    if isinstance(tree, list):
        raise ConfigError(f"{key}: set all of {'.'.join(path)}, or one option of one member")
    is_part = path[:1] == ["attention"] and last in ATTENTION_PARTS
    tree[last] = _named(_flow(text)) if is_part else text
    if path[:1] == ["position"] and last == "inner":
        tree[last], _ = _expand("position", _flow(text))


def _build(tree: dict[str, Any]) -> Config:
    config = build(Config, tree, "")
    check_definition(config.task)
    for part in parts(config).values():
        if _lacks_train_length(part):  # a default that the data say
            with config_errors(type(config.task), ""):
                part.train_length = int(config.task.token_length(config.data.max_length))
        if isinstance(part, QueryScaling) and getattr(part, "head_dim", ...) is None:
            part.head_dim = config.model.width_of_head
    return config


def _lacks_train_length(part: Any) -> bool:
    """True for a part whose `train_length` is not set, and needed, as its metadata may say."""
    field = type(part).__dataclass_fields__.get("train_length")
    if field is None or part.train_length is not None:
        return False
    return field.metadata.get("needed", lambda part: True)(part)


# ---- what changes at evaluation only

CHANGEABLE = ("position", "attention")


def is_change(word: str) -> bool:
    """Return True for an override of an option of the position encoding or of the attention."""
    return word.lstrip("-").partition("=")[0].strip().partition(".")[0] in CHANGEABLE


def with_changes(config: Config, words: list[str]) -> tuple[Config, dict[str, Any]]:
    """Return a run's config with other options of position and attention, and the differences.

    The differences are `Cell.changes`, empty if there are none. Options that are not given keep the
    run's values, also if the class changes and the new class has an option of the same name. The
    backend is `auto`, since the run's need not support the new parts.

    Raises ConfigError for other options, and for incompatible parts.
    """
    if not words:
        return config, {}
    if not isinstance(config.mixer, AttentionMixer):
        raise ConfigError(
            f"mixer={config.mixer.name} has no position or attention that could change"
        )
    tree, own = to_tree(config), part_nodes(to_tree(config))
    values = read_overrides(words)
    for key in values:
        if not is_change(key):
            raise ConfigError(f"{key} cannot change; only options of position and attention can")
        if key.endswith(".backend"):
            raise ConfigError(f"{key} has no effect on results; it is auto where options change")
    if "position" in values:
        tree["position"], _ = _expand("position", _flow(values.pop("position")))
    if "attention" in values:
        chosen, _ = _expand("attention", _flow(values.pop("attention")))
        tree["attention"] |= {"pattern": []} | chosen
    elif config.attention.pattern:
        for key in values:
            part = key.removeprefix("attention.")
            if part != key and not part.startswith("pattern."):
                member = f"attention.pattern.0.{part}"
                raise ConfigError(f"{key}: layers have different attentions; change {member}, …")
    for key in sorted(values, key=lambda key: key.count(".")):
        _put(tree, key, values[key])
    for key, node in part_nodes(tree).items():
        before = own.get(key, {})
        cls = find_class(kind_of(key), node.setdefault("name", before.get("name")))
        fields = {f.name for f in dataclasses.fields(cls) if f.init}
        node |= {name: value for name, value in before.items() if name in fields - node.keys()}
    for node in (tree["attention"], *tree["attention"]["pattern"]):
        node["backend"] = "auto"
    changed = _build(tree)
    check_config(changed)
    return changed, changes_between(config, changed)
