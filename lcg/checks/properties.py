"""A property is tried on cases from the smallest up, so the first that fails is the smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lcg.registry import fault

GATE = "shapes"
"""The property without which no other can be tried."""


class Fails(Exception):
    """A property does not hold; the message says what was found and what was expected.

    case: where it fails, if that is not the case being tried.
    """

    def __init__(self, message: str, case: Any = None) -> None:
        super().__init__(message)
        self.case = case


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


class Property(NamedTuple):
    """holds(subject, case) returns, or raises Fails or DoesNotApply, for each of cases(subject)."""

    holds: Callable[[Any, Any], None]
    cases: Callable[[Any], Iterable[Any]]
    promise: str
    """A field of the subject's `owner`; where that is False the property does not apply."""


class Properties(dict[str, Property]):
    """Properties by name, each declared where its function is."""

    def declare(
        self, name: str, cases: Callable[[Any], Iterable[Any]] | None = None, promise: str = ""
    ) -> Callable[[Callable[[Any, Any], None]], Callable[[Any, Any], None]]:
        """Add the decorated function; without cases it is called once, with None."""

        def add(holds: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
            self[name] = Property(holds, cases or (lambda subject: [None]), promise)
            return holds

        return add


def expect(condition: Any, message: str, case: Any = None) -> None:
    """Raise Fails with the message unless the condition holds."""
    if not bool(condition):
        raise Fails(message, case)


def try_properties(subject: Any, properties: Mapping[str, Property]) -> Iterator[Result]:
    """Try one property after the other; where the first fails, the others are not tried."""
    gate_failed = False
    for name, (holds, cases, promise) in properties.items():
        case = None
        try:
            if gate_failed:
                raise DoesNotApply(f"{GATE} fails")
            if promise and not getattr(subject.owner, promise):
                raise DoesNotApply(f"{promise} is False")
            for case in cases(subject):
                holds(subject, case)
            result = Result(name, "ok")
        except DoesNotApply as reason:
            result = Result(name, "does not apply", str(reason))
        except Exception as error:  # of the class, whatever it is
            gate_failed = name == GATE
            result = Result(name, "fails", _describe(error, case))
        yield result


def _describe(error: Exception, case: Any) -> str:
    text = fault(error) or " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, Fails | ValueError) and not fault(error):
        text = f"{type(error).__name__}: {text}"
    case = getattr(error, "case", None) or case
    return text if case is None else f"{text} ({case})"
