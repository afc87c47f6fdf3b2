"""The run that stands for a group: the ordered rule, ties, and monitors that cannot choose."""

from collections.abc import Callable

import pytest

from lcg.results import Choice, choose, table
from lcg.runs.record import RunRecord, Selection

Make = Callable[..., RunRecord]
Scores = dict[int, tuple[float | None, float | None]]


def chosen(*records: RunRecord) -> Choice:
    forward, backward = choose(records), choose(records[::-1])
    assert forward == backward, "the order of the runs decides nothing"
    return forward


def runs(make: Make, *validation: Scores, monitor: int = 64, **options) -> list[RunRecord]:
    selection = Selection(2000, f"val/len_{monitor}/exact_match", **options)
    return [
        make(seed=seed, validation=scores, selection=selection)
        for seed, scores in enumerate(validation)
    ]


def test_the_monitored_length_decides_not_a_longer_one(make: Make) -> None:
    choice = chosen(
        *runs(make, {64: (0.8, 0.9), 128: (0.7, 0.8)}, {64: (0.9, 0.9), 128: (0.1, 0.2)})
    )
    assert (choice.record.seed, choice.monitored, choice.path) == (1, 64, (64,))
    assert choice.resolved and choice.contenders == (choice.record,)


def test_token_accuracy_comes_before_longer_lengths(make: Make) -> None:
    choice = chosen(
        *runs(make, {64: (0.9, 0.95), 128: (0.7, 0.8)}, {64: (0.9, 0.96), 128: (0.1, 0.2)})
    )
    assert (choice.record.seed, choice.path) == (1, (64,))


def test_ties_are_taken_upward_until_runs_separate(make: Make) -> None:
    top = {64: (1.0, 1.0), 128: (1.0, 1.0)}
    choice = chosen(
        *runs(
            make,
            {64: (0.5, 0.9), 128: (1.0, 1.0), 256: (1.0, 1.0)},  # lost at the monitored length
            {**top, 256: (0.3, 0.9)},
            {**top, 256: (0.4, 0.2)},
            {64: (1.0, 1.0), 128: (0.9, 1.0)},  # lost at 128, so 256 is not asked of it
        )
    )
    assert (choice.record.seed, choice.path) == (2, (64, 128, 256))
    assert [record.seed for record in choice.contenders] == [1, 2, 3]


def test_a_length_that_a_tied_run_lacks_decides_nothing(make: Make) -> None:
    tied = runs(make, {64: (1.0, 1.0)}, {64: (1.0, 1.0), 128: (0.9, 1.0)}, {64: (0.9, 1.0)})
    choice = chosen(*tied)
    assert (choice.record.seed, choice.path, choice.resolved) == (0, (64,), False)
    assert [record.seed for record in choice.tied] == [0, 1]
    assert (
        "2 runs tie by validation up to length 64; the one with the lowest seed is shown as the "
        "best. `lcg select` breaks the tie." in table(tied)
    )
    assert "`lcg select`" not in table(tied[1:])


def test_shorter_lengths_decide_nothing(make: Make) -> None:
    choice = chosen(*runs(make, {32: (0.1, 0.2), 64: (0.5, 0.6)}, {32: (1, 1), 64: (0.5, 0.6)}))
    assert (choice.record.seed, choice.resolved) == (0, False)


def test_a_missing_validation_ranks_below_a_bad_one(make: Make) -> None:
    missing, not_finite, zero = {32: (1.0, 1.0)}, {64: (None, None)}, {64: (0.0, 0.0)}
    assert chosen(*runs(make, missing, not_finite, zero)).record.seed == 2
    assert chosen(*runs(make, missing, not_finite)).record.seed == 1


def test_where_no_run_has_the_monitored_length_the_longest_stands_in(make: Make) -> None:
    choice = chosen(*runs(make, {16: (1.0, 1.0), 32: (0.1, 1.0)}, {16: (0.1, 1.0), 32: (0.2, 0.1)}))
    assert (choice.record.seed, choice.monitored) == (1, 32)


def test_the_monitor_of_most_runs_counts(make: Make) -> None:
    scores = [{64: (0.1, 0.1), 128: (0.9, 0.9)}, {64: (0.9, 0.9), 128: (0.1, 0.1)}]
    both = [runs(make, *scores, monitor=64)[0], *runs(make, {}, *scores, monitor=128)[1:]]
    assert chosen(*both).monitored == 128


def test_no_validation_and_no_runs(make: Make) -> None:
    from dataclasses import replace

    bare = [replace(record, validation={}) for record in runs(make, {}, {})]
    choice = chosen(*bare)
    assert (choice.monitored, choice.record.seed, choice.resolved) == (None, 0, False)
    with pytest.raises(ValueError, match="no runs"):
        choose([])


def test_the_test_set_does_not_affect_selection(make: Make) -> None:
    worse = make({128: 1000}, seed=0, validation={128: (0.1, 0.2)})
    better = make({128: 0}, seed=1, validation={128: (0.2, 0.2)})
    assert chosen(worse, better).record.seed == 1


@pytest.mark.parametrize(
    ("scores", "moved", "reason"),
    [
        ([(0.0, 0.1), (0.0, 0.2)], True, "exact match at validation length 64 is 0 in all 2 runs"),
        ([(1.0, 1.0), (1.0, 1.0)], False, "chose no checkpoint in all 2 runs"),
        ([(0.0, 0.1), (0.1, 0.2)], True, ""),
    ],
)
def test_a_degenerate_monitor_is_flagged(make: Make, scores, moved: bool, reason: str) -> None:
    validation = [{64: score} for score in scores]
    records = runs(make, *validation, degenerate=not moved)
    assert reason in chosen(*records).degenerate
    assert bool(chosen(*records).degenerate) is bool(reason)
    assert ("selection metric never changed: exact match" in table(records)) is bool(reason)
