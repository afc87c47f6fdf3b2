"""Methods are called by what differs between the runs in front of the reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lcg.config import experiment_identity, experiment_tree, load_config, source_digests, to_yaml
from lcg.results import RunRecord, load_runs, table
from lcg.results.groups import group_runs
from lcg.results.labels import short_names

Make = Callable[..., RunRecord]
MEAN = """
from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.softmax import Softmax


@dataclass
class {name}(Softmax):
    "Softmax with an option."

    name: ClassVar[str] = "{lower}"
    shift: float = 0.0
    "Not used."
"""


@pytest.fixture
def record(make: Make) -> Callable[..., RunRecord]:
    """The record of a run that some words configure, as training writes it."""

    def build(*words: str, keep: bool = True) -> RunRecord:
        config = load_config(["experiment=quick/copy", *words])
        return replace(
            make({32: 900}, group=experiment_identity(config)),
            labels=config.labels,
            config=experiment_tree(config) if keep else {},
            task=experiment_tree(config)["task"],
            settings={**make().settings, "sources": source_digests(config)},
        )

    return build


def names(*records: RunRecord) -> list[str]:
    return [group.name for group in group_runs(records)]


def test_a_sweep_over_a_field_is_labelled_by_its_values(record) -> None:
    entmax = ("attention=entmax15", "attention.normalizer.alpha={}")
    found = [record(*(word.format(alpha) for word in entmax)) for alpha in (1.3, 1.5, 2)]
    assert names(*found, record("attention=softmax")) == [
        "entmax15 · nape, alpha=1.3",
        "entmax15 · nape, alpha=1.5",
        "entmax15 · nape, alpha=2",
        "softmax · nape",
    ]
    rope = [record("attention=softmax", "position=rope", f"position.base={b}") for b in (1e4, 5e5)]
    assert names(*rope) == ["softmax · rope, base=10000", "softmax · rope, base=500000"]


@pytest.mark.parametrize(
    ("word", "values", "shown"),
    [
        ("model.layers", (2, 10), "layers"),
        ("model.dropout", (0.0, 0.1), "dropout"),
        ("data.lengths_per", ("batch", "sample"), "lengths_per"),
        ("optimizer.weight_decay", (0.0, 0.1), "weight_decay"),
        ("trainer.steps", (300, 2000), "steps"),
        ("task.symbols", (16, 32), "symbols"),
        ("attention.scaling", ("log", "none"), "scaling"),
    ],
)
def test_any_field_names_a_method_where_it_differs(record, word, values, shown) -> None:
    found = [record(f"{word}={value}") for value in values]
    attention = found[0].labels["attention"]
    texts = [f"{value:g}" if isinstance(value, float) else value for value in values]
    assert names(*found) == [f"{attention} · nape, {shown}={text}" for text in texts]


def test_what_follows_from_the_method_is_not_repeated(record) -> None:
    found = [record(f"attention={name}") for name in ("softmax", "asentmax", "topk", "rela")]
    assert names(*found) == [f"{name} · nape" for name in ("asentmax", "rela", "softmax", "topk")]
    assert names(record("attention=softmax"), record("attention=asentmax", "model.layers=3")) == [
        "asentmax · nape, layers=3",
        "softmax · nape, layers=2",
    ], "a confounded comparison shows what else differs"


def test_names_are_as_short_as_they_can_be() -> None:
    keys = ["task.kind", "model.kind", "attention.normalizer.name", "attention.normalizer.alpha"]
    assert list(short_names(keys).values()) == ["task.kind", "model.kind", "normalizer", "alpha"]


def write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MEAN.format(name=name, lower=name.lower()))
    return path


def test_two_classes_of_one_name_are_told_apart(record, tmp_path: Path) -> None:
    files = [write(tmp_path / folder / "mine.py", "Mine") for folder in ("a", "b")]
    files[1].write_text(files[1].read_text().replace("0.0", "1.0"))
    found = [record(f"attention={file}:Mine") for file in files]
    label = found[0].labels["attention"]
    assert names(*found) == [
        f"{label} · nape, normalizer={folder}/mine.py:Mine, shift={shift}"
        for folder, shift in (("a", 0), ("b", 1))
    ]
    edited = [with_source(found[0], digest) for digest in ("0a1b2c3d4e5f", "a1b2c3d4e5f6")]
    assert names(*edited) == [
        f"{label} · nape, source=0a1b2c3d",
        f"{label} · nape, source=a1b2c3d4",
    ], "one file, edited between the runs"


def with_source(record: RunRecord, digest: str) -> RunRecord:
    name = record.sources["normalizer"]["name"]
    sources = {"normalizer": {"name": name, "digest": digest}}
    return replace(record, group=digest, settings={**record.settings, "sources": sources})


def test_a_user_class_is_swept_like_any_other(record, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "Mine")
    found = [
        record(f"attention={file}:Mine", f"attention.normalizer.shift={shift}") for shift in (0, 2)
    ]
    label = found[0].labels["attention"]
    assert names(*found) == [f"{label} · nape, shift=0", f"{label} · nape, shift=2"]
    assert "group " not in table(found)
    text = table(found, baseline="shift=2")
    assert f"| {label} · nape, shift=0 | {label} · nape, shift=2 |" in text


def test_a_record_without_a_config_is_labelled_by_its_config_file(record, tmp_path: Path) -> None:
    """Its class need not exist any more: nothing is imported."""
    for shift in (0, 2):
        words = ["experiment=quick/copy", "attention=entmax15", f"model.dropout=0.{shift}"]
        one = record(*words[1:], keep=False)
        folder = tmp_path / f"run{shift}"
        replace(one, run=folder.name).save(folder)
        text = to_yaml(load_config(words)).replace("name: entmax", "name: /gone/x.py:Gone")
        (folder / "config.yaml").write_text(text.replace("alpha: 1.5", "alpha: ${oc.env:HOME}"))
    assert names(*load_runs([tmp_path])) == [
        "entmax15 · nape, dropout=0",
        "entmax15 · nape, dropout=0.2",
    ]


def test_labels_are_the_same_in_the_record_and_in_the_config_file(record, tmp_path: Path) -> None:
    words = ["experiment=quick/copy", "attention=topk", "optimizer.lr=0.01", "data.workers=2"]
    (tmp_path / "config.yaml").write_text(to_yaml(load_config(words)))
    record(*words[1:], keep=False).save(tmp_path)
    (loaded,) = load_runs([tmp_path])
    kept = dict(experiment_tree(load_config(words)))
    for name in ("encoder_layers", "cross_position"):  # of encoder-decoders alone
        loaded.config["model"].pop(name)
    assert loaded.config == kept
