"""Labels of methods: attention · position, and every field in which the runs shown differ.

    softmax · nape        entmax · t5, alpha=1.7        sigmoid · t5, shift=2, layers=4

An option of an attention that differs from what its name alone stands for is always named. Labels
come from the records' configs as plain data; no class of a user is imported or run.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lcg.attention import Attention
from lcg.config.identity import to_tree
from lcg.config.schema import COMPONENTS, Config
from lcg.runs.presets import changed, named
from lcg.runs.record import RunRecord

# Fields that a label names only where nothing else tells two methods apart.
LAST_RESORTS = ("source", "parameters")
# A label begins with the names of these, so their fields follow from them.
CHOICES = ("attention", "position", "mixer", "loop")


def labels(records: Sequence[RunRecord]) -> list[str]:
    """One label per record, each of another method of one task; all labels differ.

    A field is named where two records that have it differ in it, by the shortest dotted name that
    is unambiguous. Fields of an attention or of a position encoding are compared among records of
    the same one. The attention's are named too where they differ from its preset.
    """
    fields = [config_fields(record) for record in records]
    names = short_names(key for own in fields for key in own)
    texts = {value for own in fields for value in own.values() if isinstance(value, str)}
    classes = {text: text.split("/") for text in texts if ".py:" in text}
    files = _shortest_ends(classes, "/")  # of users' classes, path/to/file.py:Class
    values: dict[tuple, set[str]] = {}
    for record, own in zip(records, fields, strict=True):
        for key, value in own.items():
            values.setdefault(_compared(record, key), set()).add(repr(value))

    def label(record: RunRecord, own: dict[str, Any], last_resorts: bool) -> str:
        begin = ("attention", "position", "loop")
        parts = [" · ".join(record.labels[name] for name in begin if name in record.labels)]
        always = changed(record)
        for key, value in own.items():
            differs = key in always or len(values[_compared(record, key)]) > 1
            if differs and (last_resorts or key.rpartition(".")[2] not in LAST_RESORTS):
                text = files.get(value, value) if isinstance(value, str) else setting_text(value)
                parts.append(f"{names[key]}={text}")
        return ", ".join(parts)

    found = [label(*pair, False) for pair in zip(records, fields, strict=True)]
    for index in _repeated(found):
        found[index] = label(records[index], fields[index], True)
    for index in _repeated(found):
        found[index] += f", run {records[index].run}"
    return found


def run_labels(records: Sequence[RunRecord]) -> list[str]:
    """One label per run of one task: of its method, and seed and learning rate where they differ.

    Runs with the same label are the same run.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    of_group = dict(zip(groups, labels([named(own)[0] for own in groups.values()]), strict=True))

    def label(record: RunRecord) -> str:
        parts = [of_group[record.group]]
        for name in ("seed", "lr"):
            if len({other.settings[name] for other in groups[record.group]}) > 1:
                parts.append(f"{name}={setting_text(record.settings[name])}")
        return ", ".join(parts)

    return [label(record) for record in records]


def change_labels(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """One label for each set of changes at evaluation: "yarn, scale=8", "scaling=log".

    The code of a user's class is named only where nothing else tells two of them apart.
    """
    names = short_names(key for own in changes for key in own)
    for key, name in names.items():
        if name.partition(".")[0].isdecimal():  # a member of a pattern
            names[key] = key.removesuffix(".name")

    def label(own: Mapping[str, Any], sources: bool) -> str:
        parts = []
        for key, value in own.items():
            is_source = key.rpartition(".")[2] == "source"
            if is_source and not sources:
                continue
            text = str(value)[:8] if is_source else setting_text(value)
            bare = key == "position.name" and value is not None
            parts.append(text if bare else f"{names[key]}={text}")
        return ", ".join(parts)

    texts = [label(own, False) for own in changes]
    for index in [*_repeated(texts), *(i for i, text in enumerate(texts) if not text)]:
        texts[index] = label(changes[index], True)
    return texts


def change_label(changes: Mapping[str, Any]) -> str:
    """The label of changes that stand alone."""
    return change_labels([changes])[0]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys -> the shortest ends of them that no other key has; `.name` is left out."""
    return _shortest_ends({key: key.removesuffix(".name").split(".") for key in keys}, ".")


def _shortest_ends(paths: Mapping[str, Sequence[str]], separator: str) -> dict[str, str]:
    """Name -> the shortest end of its path that no other has, or all of its path."""
    ends = {
        name: [separator.join(path[start:]) for start in reversed(range(len(path)))]
        for name, path in paths.items()
    }
    counts = Counter(end for own in ends.values() for end in own)
    return {
        name: next((end for end in own if counts[end] == 1), own[-1]) for name, own in ends.items()
    }


def setting_text(value: Any) -> str:
    """A setting for a reader: 0.001, 8–32, true, none."""
    if isinstance(value, list | tuple):
        return "–".join(setting_text(item) for item in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def config_fields(record: RunRecord) -> dict[str, Any]:
    """Dotted field -> value: of the config, or of what a record without one says of it."""
    settings = record.settings
    tree: dict[str, Any] = record.config or {
        "task": record.task,
        "model": {"kind": settings.get("kind", "decoder")},
        "data": {
            "batch_size": settings.get("batch_size"),
            "min_length": record.train_min,
            "max_length": record.train_max,
        },
        "steps": settings.get("steps"),
    }
    if record.config:  # which leaves out some fields that are as usual
        usual, attention = _added_later(Config), tree.get("attention")
        tree = usual | tree
        if isinstance(attention, Mapping):
            tree["attention"] = _added_later(Attention) | attention
    fields = _flat(tree) | {"parameters": settings.get("parameters")}
    for kind, source in record.sources.items():  # a user's class: by its file, then by its code
        path = kind if kind.partition(".")[0] in COMPONENTS else f"attention.{kind}"
        fields |= {f"{path}.name": source["name"], f"{path}.source": source["digest"][:8]}
    return fields


def _added_later(cls: type) -> dict[str, Any]:
    """The fields that a config leaves out where they have their defaults, with these."""
    fields = [f for f in dataclasses.fields(cls) if f.metadata.get("identity") == "unless default"]
    is_made = {f.name: f.default is dataclasses.MISSING for f in fields}
    return {f.name: to_tree(f.default_factory() if is_made[f.name] else f.default) for f in fields}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
            value = {str(i): member for i, member in enumerate(value)}
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def _compared(record: RunRecord, key: str) -> tuple:
    """A field, and the choice that records must share for it to be compared."""
    choice = key.partition(".")[0]
    return key, record.labels.get(choice) if choice in CHOICES else None


def _repeated(texts: Sequence[str]) -> list[int]:
    counts = Counter(texts)
    return [index for index, text in enumerate(texts) if counts[text] > 1]
