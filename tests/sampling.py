"""Products over registered classes: the quick suite runs a sample, `make test-all` the whole."""

import hashlib
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest

WHOLE = True
"""False in a session that deselects slow tests and so need not collect them: see conftest.py."""


def sampled(
    *factors: Iterable[Any],
    whole: Callable[..., Iterable[tuple]] = product,
    one_in: int = 1,
    seed: str = "",
) -> list[Any]:
    """Return the rows of `whole(*factors)` as parameters of a test, marked slow outside a sample.

    The sample has every value of every factor in some row, beside those values of the other factors
    whose hash with it is the largest: it is the same in every session, and a class that is added
    changes few rows. Where a row takes long, about one in `one_in` stays in the sample.

    A row is a tuple of one value per factor, or the value where there is one factor.
    """
    spans = [{_name(value): value for value in factor} for factor in factors]
    sample, covered = {}, [set() for _ in spans]
    for place, span in sorted(enumerate(spans), key=lambda pair: -len(pair[1])):
        for name in span:
            if name in covered[place]:
                continue
            row = tuple(
                name if other == place else max(names, key=lambda n: _hash(seed, name, n))
                for other, names in enumerate(spans)
            )
            sample[row] = tuple(values[n] for values, n in zip(spans, row, strict=True))
            for names, n in zip(covered, row, strict=True):
                names.add(n)
    order = sorted(sample, key=lambda row: _hash(seed, *row))
    kept = [row for row in order if _hash(seed, *row) % one_in == 0] or order[:1]
    every = {tuple(map(_name, row)): row for row in whole(*factors)} if WHOLE else {}
    rest = {row: values for row, values in {**sample, **every}.items() if row not in kept}
    return [pytest.param(_alone(sample[row])) for row in kept] + [
        pytest.param(_alone(values), marks=pytest.mark.slow) for values in rest.values()
    ]


def _alone(row: tuple) -> Any:
    return row if len(row) > 1 else row[0]


def _name(value: Any) -> str:
    """A name that is the same in every session: dataclasses and plain values print as they are."""
    return getattr(value, "__qualname__", None) or repr(value)


def _hash(*names: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8])
