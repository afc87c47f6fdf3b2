"""`lcg check`: every built-in class has its properties, and a broken one lacks just that one."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from oracles.registered import FIRST
from sampling import sampled

from lcg import registry
from lcg.attention import Attention
from lcg.checks import attention, mixers, positions, tasks
from lcg.checks.properties import GATE, try_properties
from lcg.cli import main

FILE = Path(__file__).parent / "classes" / "broken.py"
BUILT_IN = [(kind, name) for kind in registry.HOMES for name in registry.available(kind)]

BROKEN = {
    ("task", "Right"): [],
    ("task", "Narrow"): ["shapes"],
    ("task", "ByProcess"): ["same elsewhere"],
    ("task", "Unscored"): ["shapes"],
    ("task", "Counted"): ["mixed lengths"],
    ("task", "Spaced"): ["symbols"],
    ("task", "Remembers"): ["evaluation"],
    ("task", "Misnamed"): ["measure"],
    ("task", "ChangesLater"): ["same when repeated"],
    ("task", "ByFirstRow"): ["own target"],
    ("task", "ReversesPadding"): ["own target"],
    ("task", "GlobalRandom"): ["same when repeated", "same elsewhere", "evaluation"],
    ("task", "DrawnIds"): ["position ids"],
    ("task", "LabelIds"): ["position ids"],
    ("task", "WideIds"): ["position ids"],
    ("normalizer", "Weights"): [],
    ("normalizer", "NotOne"): ["sums to one"],
    ("normalizer", "NotShiftInvariant"): ["shift-invariant"],
    ("normalizer", "WrongGradient"): ["gradient"],
    ("normalizer", "NoEdge"): ["sparse", "chunked = whole"],  # which relies on it
    ("normalizer", "Dense"): ["sparse"],
    ("normalizer", "Overflows"): ["shapes"],
    ("normalizer", "NotElementwise"): ["elementwise"],
    ("normalizer", "Unused"): ["learned tensors"],
    ("normalizer", "Shared"): ["learned tensors"],
    ("normalizer", "WrongShape"): ["shapes"],
    ("position", "Absolute"): ["relative"],
    ("position", "AbsoluteFar"): ["relative"],
    ("position", "ReadsHidden"): [
        "scores in parts",
        "cached = whole",
        "padded = unpadded",
        "chunked = whole",
    ],
    ("position", "Counts"): [
        "scores in parts",
        "cached = whole",
        "selected = all",
        "chunked = whole",
    ],
    ("position", "Widens"): ["shapes"],
    ("position", "Random"): [
        "cached = whole",
        "selected = all",
        "padded = unpadded",
        "draws repeat",
    ],
    ("scaling", "InfiniteAtOne"): ["shapes"],
    ("scaling", "ByLongest"): ["cached = whole", "padded = unpadded"],
    ("output_norm", "AcrossTokens"): ["cached = whole", "selected = all", "padded = unpadded"],
    ("mixer", "SeesLater"): ["causal", "cached = whole", "padded = unpadded"],
    ("mixer", "Forgets"): ["cached = whole"],
    ("loop", "NoLoop"): ["shapes"],
}


def failures(kind: str, name: str, only: list[str] | None = None, **options: Any) -> dict[str, str]:
    """The properties of a class that fail, with what is said of each; of these only, or of all."""
    cls = partial(registry.find(kind, name), **options)
    if kind == "task":
        subject, properties = tasks.Subject(cls(), [f"task={name}"], 100), tasks.PROPERTIES
    elif kind in ("mixer", "loop"):
        subject, properties = getattr(mixers, f"of_{kind}")(cls())
    elif kind == "position":
        subject, properties = positions.subject(cls()), positions.PROPERTIES
    else:
        parts = {k: rest for k, *rest in attention.subjects(Attention(**{kind: cls()}))}
        if kind not in parts:
            return {}  # it is called none and does nothing
        subject, properties = parts[kind]
    if only is not None:
        properties = {key: each for key, each in properties.items() if key in (GATE, *only)}
    results = list(try_properties(subject, properties))
    assert [result.name for result in results] == list(properties)
    return {result.name: result.text for result in results if result.state == "fails"}


@pytest.mark.parametrize("built_in", sampled(BUILT_IN, one_in=5, seed="checks"), ids="-".join)
def test_a_built_in_class_has_every_property(built_in):
    kind, name = built_in
    options = FIRST.get(name, {}) if kind in ("position", "scaling") else {}
    assert failures(kind, name, **options) == {}


@pytest.mark.parametrize(("kind", "name"), BROKEN)
def test_a_broken_class_lacks_the_property_that_it_breaks(kind, name):
    lacking = BROKEN[kind, name]
    assert list(failures(kind, f"{FILE}:{name}", only=lacking)) == lacking


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), BROKEN)
def test_a_broken_class_has_all_other_properties(kind, name):
    assert list(failures(kind, f"{FILE}:{name}")) == BROKEN[kind, name]


def test_the_smallest_failing_input_is_named():
    assert failures("task", f"{FILE}:Unscored", only=[]) == {
        "shapes": "Unscored.sample() returned a target with no scored position in row 0 of 1, "
        "expected at least one label that is not IGNORE in each row "
        "(length 5, batch size 1, seed 0)"
    }
    (said,) = failures("normalizer", f"{FILE}:WrongGradient", only=["gradient"]).values()
    assert said.startswith("the gradient in the scores is ")
    assert said.endswith("(2 keys, 1 queries, heads 1)")


def test_the_command(capsys):
    words = [f"task={FILE}:Right", "task.symbols=5", "length=40"]
    assert main(["check", *words]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "task right (Right)"
    assert "  shapes               ok" in out
    assert "  measure              does not apply: metrics is empty" in out
    assert main(["check", f"task={FILE}:Spaced"]) == 2
    captured = capsys.readouterr()
    assert "symbols              fails: symbol(0) returned 's 0'" in captured.out
    assert captured.err == "lcg: 1 property failed\n"


def test_the_command_on_layers_with_different_parts(capsys, monkeypatch):
    """With two properties of each, to save time."""
    two = lambda subject, all: {name: all[name] for name in (GATE, "cached = whole")}  # noqa: E731
    monkeypatch.setattr(
        "lcg.checks.properties.try_properties", lambda *given: try_properties(given[0], two(*given))
    )
    words = ["position=[rope,nope,rope]", "attention=[softmax,entmax15]"]
    assert main(["check", *words, f"mixer={FILE}:Forgets"]) == 2
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if not line.startswith(" ")] == [
        "attention.normalizer softmax (Softmax)",
        "attention.normalizer entmax (Entmax)",
        "position rope (RoPE)",
        "position nope (NoPE)",
        "mixer forgets (Forgets)",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a task, an attention, a position, a mixer or a loop to check"),
        (["model.heads=2"], "model.heads=2 has no effect here"),
        (["task=copi"], "did you mean copy?"),
        (["length=long"], "'long' is not a whole number"),
    ],
)
def test_unsupported_checks(words, said, capsys):
    assert main(["check", *words]) == 2
    assert said in capsys.readouterr().err
