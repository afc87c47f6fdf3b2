"""Methods are called by what differs between the runs in front of the reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lcg.config import experiment_identity, load_config, to_yaml
from lcg.config.identity import experiment_tree, source_digests
from lcg.results import table
from lcg.results.aggregate import group_runs
from lcg.results.labels import run_labels, short_names
from lcg.runs.record import Cell, RunRecord
from lcg.runs.run import Run

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

MIXER = """
from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.mixers import Mixer


@dataclass
class LSTM(Mixer):
    name: ClassVar[str] = "lstm"
    layers: int = 1
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
        "entmax15 · nape",
        "entmax · nape, alpha=1.3",
        "entmax · nape, alpha=2",
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
    found = [record("attention=softmax", f"{word}={value}") for value in values]
    texts = [f"{value:g}" if isinstance(value, float) else value for value in values]
    assert names(*found) == [f"softmax · nape, {shown}={text}" for text in texts]


def test_choices_implied_by_the_method_are_not_repeated(record) -> None:
    found = [record(f"attention={name}") for name in ("softmax", "asentmax", "topk", "rela")]
    assert names(*found) == [f"{name} · nape" for name in ("asentmax", "rela", "softmax", "topk")]
    assert names(record("attention=softmax"), record("attention=asentmax", "model.layers=3")) == [
        "asentmax · nape, layers=3",
        "softmax · nape, layers=2",
    ], "a confounded comparison shows what else differs"


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("topk normalizer.k=4", "topk · nape, k=4"),
        ("entmax15 normalizer.alpha=2", "entmax · nape, alpha=2"),
        ("entmax15 normalizer.alpha=1.5", "entmax15 · nape"),
        ("entmax normalizer.alpha=2", "entmax · nape, alpha=2"),
        ("entmax normalizer=softmax", "softmax · nape"),
        ("asentmax scaling=none", "entmax · nape"),
        ("asentmax normalizer=softmax scaling=none", "softmax · nape"),
        ("asentmax scaling.gamma_range=3", "entmax · nape, scaling=adaptive, gamma_range=3"),
        ("softmax scaling=log", "softmax · nape, scaling=log"),
        ("rela output_norm=none", "relu · nape"),
        ("rela_g output_norm.eps=0.1", "rela_g · nape, eps=0.1"),
        ("{normalizer:_entmax,_scaling:_log} normalizer.alpha=2", "entmax+log · nape, alpha=2"),
        ("{normalizer:_entmax,_scaling:_log} scaling=none", "entmax · nape"),
    ],
)
def test_a_label_fits_its_config(record, words, label) -> None:
    """Alone in a table too, an attention is not called by a preset that it is not."""
    attention, *others = [word.replace("_", " ") if "{" in word else word for word in words.split()]
    assert names(record(f"attention={attention}", *(f"attention.{o}" for o in others))) == [label]


def test_a_users_preset_is_held_to_its_file(record, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "configs" / "attention"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("normalizer: {name: entmax, alpha: 1.2}\nscaling: log\n")
    monkeypatch.chdir(tmp_path)
    plain = record("attention=mine")
    changed = record("attention=mine", "attention.normalizer.alpha=2")
    more = record("attention=mine", "attention.scaling.offset=0.5")
    assert [*names(plain), *names(changed), *names(more)] == [
        "mine · nape",
        "entmax · nape, alpha=2, scaling=log",
        "mine · nape, offset=0.5",
    ]


def test_one_config_has_one_name(record) -> None:
    """Runs of one group are called by the preset that some of them have unmodified."""
    changed = record("attention=asentmax", "attention.scaling=none")
    for other in (record("attention=entmax15"), record("attention=entmax")):
        assert other.group == changed.group
    for order in ((changed, record("attention=entmax15")), (record("attention=entmax15"), changed)):
        assert names(*order) == ["entmax15 · nape"]
        assert run_labels(order) == ["entmax15 · nape"] * 2


def test_runs_of_one_hash_are_counted_once(record, tmp_path: Path) -> None:
    words = "asentmax", "attention.normalizer=softmax", "attention.scaling=none"
    baseline = record("attention=softmax")
    twin = replace(record(f"attention={words[0]}", *words[1:]), hash=baseline.hash)
    for name, run in (
        ("a", replace(twin, run="a")),
        ("b", baseline),
        ("c", record("attention=topk")),
    ):
        run.save(tmp_path / name)
    lines: list[str] = []
    found = [run.record for run in Run.find([tmp_path], lines.append)]
    line = "{}: the same run as {}; name one of the two"
    assert lines == [line.format(tmp_path / "a", tmp_path / "b")]
    assert names(*found) == ["softmax · nape", "topk · nape"]
    rows = [line for line in table(found).splitlines() if line.startswith("| topk")]
    assert rows[1].split("|")[2].strip() == "softmax · nape", "it is the baseline"
    twin.merge([Cell(64, 9, 1, correct=3)]).save(tmp_path / "a")
    lines.clear()
    found = [run.record for run in Run.find([tmp_path], lines.append)]
    assert lines == [line.format(tmp_path / "b", tmp_path / "a")], "the one that got further counts"
    assert names(*found) == ["softmax · nape", "topk · nape"]


def test_names_are_as_short_as_they_can_be() -> None:
    keys = ["task.kind", "model.kind", "attention.normalizer.name", "attention.normalizer.alpha"]
    assert list(short_names(keys).values()) == ["task.kind", "model.kind", "normalizer", "alpha"]


def write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MEAN.format(name=name, lower=name.lower()))
    return path


def test_two_classes_of_one_name_have_different_labels(record, tmp_path: Path) -> None:
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


def test_mixers_and_loops_stand_in_labels(record, tmp_path: Path) -> None:
    """A mixer in the place of attention; what a record leaves out is as usual."""
    (tmp_path / "lstm.py").write_text(MIXER)
    lstm = f"mixer={tmp_path}/lstm.py:LSTM"
    found = [record(), record(lstm), record(lstm, "mixer.layers=2"), record("attention.sink=zero")]
    assert names(*found) == [
        "asentmax · nape, sink=none",
        "asentmax · nape, sink=zero",
        "lstm · nape, mixer.layers=1",
        "lstm · nape, mixer.layers=2",
    ]
    found = [record(), record("loop.loops=3"), record("loop.loops=3", "loop.inject=true")]
    assert names(*found) == [
        "asentmax · nape, inject=false, loops=1",
        "asentmax · nape, inject=false, loops=3",
        "asentmax · nape, inject=true, loops=3",
    ]


def test_options_within_layers_and_groups_stand_in_labels(record) -> None:
    bases = [record("position=[rope,nope]", f"position.pattern.0.base={b}") for b in (1e3, 1e4)]
    assert names(*bases) == ["asentmax · rope,nope, base=1000", "asentmax · rope,nope, base=10000"]


def test_a_record_without_a_config_is_labelled_by_its_config_file(record, tmp_path: Path) -> None:
    """Its class need not exist any more: nothing is imported."""
    for shift in (0, 2):
        words = ["experiment=quick/copy", "attention=entmax15", f"model.dropout=0.{shift}"]
        one = record(*words[1:], keep=False)
        folder = tmp_path / f"run{shift}"
        replace(one, run=folder.name).save(folder)
        text = to_yaml(load_config(words)).replace("name: entmax", "name: /gone/x.py:Gone")
        (folder / "config.yaml").write_text(text.replace("alpha: 1.5", "alpha: ${oc.env:HOME}"))
    assert names(*[run.record for run in Run.find([tmp_path])]) == [
        "Gone · nape, dropout=0",
        "Gone · nape, dropout=0.2",
    ]


UNLESS_DEFAULT = {
    *("encoder_layers", "cross_position", "qk_norm", "sink", "pattern", "softcap", "selective"),
    *("decay", "stop_when_solved", "distinct", "times"),
}
"""Options that a record leaves out as they are."""


def test_labels_are_the_same_in_the_record_and_in_the_config_file(record, tmp_path: Path) -> None:
    words = ["experiment=quick/copy", "attention=topk", "optimizer.lr=0.01", "data.workers=2"]
    (tmp_path / "config.yaml").write_text(to_yaml(load_config(words)))
    record(*words[1:], keep=False).save(tmp_path)
    (loaded,) = [run.record for run in Run.find([tmp_path])]
    kept = dict(experiment_tree(load_config(words)))
    for section, options in loaded.config.items():
        if isinstance(options, dict):
            for name in UNLESS_DEFAULT & (options.keys() - kept[section].keys()):
                del options[name]
    assert loaded.config == kept
