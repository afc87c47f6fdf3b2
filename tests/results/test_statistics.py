"""Intervals, effective length and aggregation against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcg.results import effective_length, wilson
from lcg.results.aggregate import RunResult
from lcg.results.statistics import over_seeds
from lcg.runs.record import Cell


def cell(length: int, outcome: int | str) -> Cell:
    if isinstance(outcome, str):
        return Cell(length, 100, 1, state=outcome, reason="because")
    return Cell(length, 100, 1, correct=outcome)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Wilson's formula by hand; 1 of 10: (0.1 + 0.19208 ± 1.96·√(0.009 + 0.009604)) / 1.38416
        (1, 10, 0.017876, 0.404156),
        (0, 10, 0.0, 0.277540),  # z² / (n + z²)
        (10, 10, 0.722460, 1.0),
        (50, 100, 0.403830, 0.596170),
        (982, 1000, 0.971727, 0.988586),
    ],
)
def test_wilson_known_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=2e-6)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_proportion_and_mirrors(pair: tuple[int, int]) -> None:
    correct, n = pair
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    mirrored = wilson(n - correct, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_invalid_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(correct, n)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([100, 95, 90, 89, 100], 4),  # a pass after a failure does not count; 90 % passes
        ([100, 95], 2),
        ([89, 100], None),
        ([], None),
        ([100, "skipped", "out_of_memory"], 1),
        ([100, "out_of_memory", 95], 4),  # not evaluated, so it cannot fail
        ([100, "not_finite", 95], 1),
        (["did_not_train"], None),
    ],
)
def test_effective_length(outcomes: list, expected: int | None) -> None:
    cells = [cell(2**i, out) for i, out in enumerate(outcomes)]
    assert effective_length(reversed(cells)) == expected


def test_effective_length_needs_every_evaluation_of_a_length_to_pass() -> None:
    assert effective_length([cell(8, 100), cell(16, 100), cell(16, 10)]) == 8
    assert effective_length([cell(8, 40)], threshold=0.4) == 8


def test_out_of_distribution_mean_leaves_states_out(make) -> None:
    run = RunResult(make({32: 1000, 64: 800, 128: 400, 256: "out_of_memory"}))
    mean = run.mean_out_of_distribution()
    assert (mean.value, mean.n, mean.of) == (pytest.approx(0.6), 2, 3)
    nothing = RunResult(make({32: 1000})).mean_out_of_distribution()
    assert (nothing.value, nothing.n, nothing.of) == (None, 0, 0)


def test_over_seeds() -> None:
    stats = over_seeds([0.9, 0.0, None, 0.6], [True, False, None, True])
    assert (stats.median, stats.low, stats.high) == (0.6, 0.0, 0.9)
    assert (stats.trained, stats.runs) == (2, 4)
    assert stats.mean_trained.value == pytest.approx(0.75)
    assert (stats.mean_all.value, stats.mean_all.n, stats.mean_all.of) == (0.5, 3, 4)
    assert stats.values == (0.9, 0.0, None, 0.6)
    with pytest.raises(ValueError):
        over_seeds([0.9], [])


@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 4))
def test_absent_values_change_no_statistic(values: list[float], absent: int) -> None:
    plain = over_seeds(values, [True] * len(values))
    padded = over_seeds([*values, *[None] * absent], [True] * (len(values) + absent))
    for name in ("median", "low", "high"):
        assert getattr(padded, name) == getattr(plain, name)
    assert padded.mean_all.value == plain.mean_all.value
    assert padded.mean_trained.value == plain.mean_trained.value
