"""Help says of every option what it is set to, what it means, and what it would be."""

import dataclasses
from dataclasses import dataclass

import pytest

from lcg import registry
from lcg.attention import Attention
from lcg.config import load_config
from lcg.config.help import describe, describe_fields, field_help, first_sentence
from lcg.config.schema import SECTIONS, Config, Evaluation
from lcg.config.types import as_text

COMPONENTS = [
    pytest.param(cls, id=f"{kind}-{name}")
    for kind in registry.HOMES
    for name, cls in registry.available(kind).items()
]


@pytest.mark.parametrize("cls", [Config, Attention, *SECTIONS.values(), *COMPONENTS])
def test_every_field_has_a_meaning(cls):
    missing = [name for name, text in field_help(cls).items() if not text]
    assert set(missing) == (set(SECTIONS) if cls is Config else set())


@pytest.mark.parametrize("cls", COMPONENTS)
def test_every_class_has_a_summary(cls):
    from lcg.config.help import summary

    assert len(summary(cls)) > 10


def entry(text: str, option: str) -> str:
    """Return the help of one option, its lines joined."""
    lines = text.splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.split()[:1] == [option]]
    found = [lines[start].strip().removeprefix(option)]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * 30):
            break
        found.append(line)
    return " ".join(" ".join(found).split())


def test_describe_names_every_field_with_value_and_meaning(here):
    config = load_config(["attention=asentmax", "task=local_count", "position=rope"])
    text = describe(config)
    parts = {name: getattr(config, name) for name in SECTIONS}
    parts |= {"task": config.task, "position": config.position}
    parts |= {f"attention.{p}": getattr(config.attention, p) for p in ("normalizer", "scaling")}
    for path, part in parts.items():
        for name, meaning in field_help(type(part)).items():
            option = f"{path}.{name}={as_text(getattr(part, name))}"
            assert entry(text, option).startswith(meaning), option
    for name in ("seed", "name", "runs"):
        assert f"{name}={as_text(getattr(config, name))}" in text


def test_describe_shows_a_default_only_where_it_is_another(here):
    text = describe(load_config(["model.layers=3", "model.kv_heads=4", "data.batch_size=64"]))
    assert entry(text, "model.layers=3").endswith("(default 2)")
    assert entry(text, "model.kv_heads=4").endswith("(default null)")
    assert text.count("(default") == 2


def test_describe_lists_what_can_be_chosen(here):
    text = describe(load_config(["attention=asentmax"]))
    assert "quick/copy" in entry(text, "experiment=")
    assert "flip_flop" in entry(text, "task=copy")
    assert "path/to/file.py:Class" in entry(text, "task=copy")
    assert "ssmax" in entry(text, "attention=asentmax")
    assert "One of adaptive_temperature, entmax," in entry(text, "attention.normalizer=entmax")
    assert entry(text, "attention.scaling.init=authors").startswith("authors: weights")
    assert entry(text, "data.lengths_per=sample").endswith("One of sample, batch.")
    block = entry(text, "model.block=prenorm")
    assert "One of" not in block, "the meaning names both already"


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_describe_fits_the_terminal(columns, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, describe(load_config([])).splitlines())) <= columns


def test_describe_a_user_s_class(write):
    write(
        "mine.py",
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from lcg.tasks.copy import Copy\n"
        "@dataclass\n"
        "class Mine(Copy):\n"
        '    """Copy, but mine. And more."""\n'
        '    name: ClassVar[str] = "mine"\n'
        "    extra: int = 5\n"
        '    """What is\n'
        '    extra."""\n'
        "    silent: int = 6\n",
    )
    text = describe(load_config(["task=./mine.py:Mine", "task.extra=7"]))
    assert "mine.py:Mine:Copy,butmine." in "".join(text.split())  # wherever lines are broken
    assert entry(text, "task.extra=7") == "What is extra. (default 5)"
    assert entry(text, "task.symbols=32").startswith("Size of the alphabet")
    assert entry(text, "task.silent=6") == ""


def test_a_class_without_a_file_has_no_texts():
    made = dataclasses.make_dataclass("Made", [("size", int, 3)])
    assert field_help(made) == {"size": ""}


def test_the_fields_of_one_section():
    text = describe_fields(Evaluation(samples=7))
    assert entry(text, "samples=7") == "Samples per length. (default 1000)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.001, "0.001"),
        (1e-20, "1e-20"),
        (0.1 + 0.2, "0.30000000000000004"),
        ([32, 64], "32,64"),
        ([], "[]"),
        ("a b", "a b"),
    ],
)
def test_values_as_they_are_typed(value, text):
    assert as_text(value) == text


def test_first_sentence():
    assert first_sentence("One (1905.05702). Two.") == "One (1905.05702)."
    assert (
        first_sentence("Counts: 0, 1, 2, ... Then more. End") == "Counts: 0, 1, 2, ... Then more."
    )
    assert first_sentence("") == ""


def test_inherited_fields_are_found():
    @dataclass
    class Base:
        a: int = 1
        """First."""

    @dataclass
    class Derived(Base):
        b: int = 2
        """Second."""

    assert field_help(Derived) == {"a": "First.", "b": "Second."}
