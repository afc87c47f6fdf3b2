"""Values become what a field's type asks for, from YAML and from text alike, or are refused."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcg.config.errors import ConfigError
from lcg.config.types import as_text, build, convert

GOOD = [
    (int, "3", 3),
    (int, "1e5", 100_000),
    (int, 1e5, 100_000),
    (int, "2.0", 2),
    (int, "-3", -3),
    (int, "010", 10),  # decimal, whatever YAML 1.1 says
    (int, "12345678901234567890", 12345678901234567890),
    (float, "1e-3", 0.001),
    (float, 2, 2.0),
    (float, ".5", 0.5),
    (float, "inf", float("inf")),
    (float, "-.inf", -float("inf")),
    (bool, "true", True),
    (bool, "False", False),
    (bool, "no", False),
    (bool, True, True),
    (str, "1e3", "1e3"),
    (str, 3, "3"),
    (str, "", ""),
    (int | None, None, None),
    (int | None, "null", None),
    (int | None, "None", None),
    (int | None, "4", 4),
    (list[int], "64,128", [64, 128]),
    (list[int], "[64, 128]", [64, 128]),
    (list[int], "64", [64]),
    (list[int], 64, [64]),
    (list[int], [64, "1e3"], [64, 1000]),
    (list[int], "[]", []),
    (list[str], "a,b", ["a", "b"]),
    (list, "a,3", ["a", 3]),
    (tuple[int, ...], "1,2,3", (1, 2, 3)),
    (tuple[int, float], "1,2", (1, 2.0)),
    (dict[str, int], "{a: 1, b: 2}", {"a": 1, "b": 2}),
    (Literal["a", "b"], "a", "a"),
    (Literal[1, 2], "2", 2),
    (float | str, "auto", "auto"),
    (float | str, "2", 2.0),
    (float | str, 2, 2.0),
    (int | float, "2", 2),
    (int | float, "2.5", 2.5),
    (int | float, 2.5, 2.5),
    (Any, "3", 3),
    (Any, "[1, 2]", [1, 2]),
    (Any, "@odd", "@odd"),
]
BAD = [
    (int, "1.5"),
    (int, 1.5),
    (int, "three"),
    (int, True),
    (int, None),
    (int, ""),
    (int, [3]),
    (int, "1e999"),
    (float, "fast"),
    (float, True),
    (float, float("nan")),
    (float, "1e"),
    (bool, 1),
    (bool, "2"),
    (str, True),
    (str, ["a"]),
    (str, None),
    (int | None, "x"),
    (int | float, "x"),
    (list[int], "a"),
    (list[int], {"a": 1}),
    (list[int], None),
    (tuple[int, int], "1,2,3"),
    (dict[str, int], "3"),
    (dict[str, int], "{a: x}"),
    (Literal["a", "b"], "c"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD)
def test_converts(kind, value, expected):
    converted = convert(kind, value, "here")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_refuses(kind, value):
    with pytest.raises(ConfigError, match=r"^here\b"):
        convert(kind, value, "here")


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.integers()))
def test_printed_options_can_be_typed(value):
    kind = list[int] if isinstance(value, list) else type(value)
    assert convert(kind, as_text(value), "here") == value


@dataclass
class Inner:
    size: int = 1


@dataclass
class Outer:
    needed: int
    inner: Inner = field(default_factory=Inner)
    derived: int = field(init=False, default=0)


def test_nested_dataclasses():
    assert build(Outer, {"needed": "2", "inner": {"size": "3"}}, "outer") == Outer(2, Inner(3))
    with pytest.raises(ConfigError, match=r"^outer.inner.sise is not an option; did you mean"):
        build(Outer, {"needed": 2, "inner": {"sise": 3}}, "outer")
    with pytest.raises(ConfigError, match=r"^outer.needed must be given"):
        build(Outer, {}, "outer")
    with pytest.raises(ConfigError, match=r"^outer.derived is not an option"):
        build(Outer, {"needed": 1, "derived": 2}, "outer")
    with pytest.raises(ConfigError, match=r"^outer: expected fields, got 3"):
        build(Outer, 3, "outer")


def test_a_type_that_is_nowhere():
    cls = dataclasses.make_dataclass("Odd", [("size", "NoSuchType", 3)])
    with pytest.raises(ConfigError, match=r"^odd: Odd has an unknown type"):
        build(cls, {}, "odd")
