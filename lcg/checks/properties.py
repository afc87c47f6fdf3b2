"""A property is tried on cases from the smallest up, so the first that fails is the smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lcg.registry import fault

Case = TypeVar("Case")
GATE = "shapes"
"""The property without which no other can be tried."""


class Fails(Exception):
    """A property does not hold; the message says what was found and what was expected."""


class DoesNotApply(Exception):
    """A property is not promised or cannot be tried; the message says why."""


@dataclass(frozen=True)
class Result:
    """The outcome of one property of a class."""

    name: str
    state: str
    """ok, fails, or does not apply."""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name:<20} {self.state}{f': {self.text}' if self.text else ''}"


class Cases:
    """Remembers the case that is being tried, for the line on what fails."""

    def __init__(self) -> None:
        self.current: Any = None

    def each(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases one by one."""
        for case in cases:
            self.current = case
            yield case


Property = Callable[[Any, Cases], None]
"""property(subject, cases) raises Fails or DoesNotApply, or returns."""


def expect(condition: Any, message: str) -> None:
    """Raise Fails with the message unless the condition holds."""
    if not bool(condition):
        raise Fails(message)


def try_properties(subject: Any, properties: Mapping[str, Property]) -> Iterator[Result]:
    """Try one property after the other; where the first fails, the others are not tried."""
    gate_failed = False
    for name, holds in properties.items():
        if gate_failed:
            yield Result(name, "does not apply", f"{GATE} fails")
            continue
        cases = Cases()
        try:
            holds(subject, cases)
            yield Result(name, "ok")
        except DoesNotApply as reason:
            yield Result(name, "does not apply", str(reason))
        except Exception as error:  # of the class, whatever it is
            gate_failed = name == GATE
            yield Result(name, "fails", _told(error, cases.current))


def _told(error: Exception, case: Any) -> str:
    text = fault(error) or " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, Fails | ValueError) and not fault(error):
        text = f"{type(error).__name__}: {text}"
    return f"{text} ({case})" if case is not None else text
