"""Paired differences: the interval and the test against formulas of their own, and coverage."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from math import comb, log

import pytest

from lcg.results import table
from lcg.results.aggregate import group_runs
from lcg.results.paired import compare, differences, mcnemar, tango
from lcg.runs.record import Cell, RunRecord

Make = Callable[..., RunRecord]


def test_a_published_example() -> None:
    """Airway hyper-responsiveness before and after a transplantation (Bentur et al., 2009), from
    Fagerland, Lydersen & Laake, Statistics in Medicine 33 (2014): 1 and 7 of 21 pairs differ."""
    low, high = tango(1, 7, 21)
    assert (low, high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)


def test_pairs_that_never_differ() -> None:
    """No discordant pair: the interval is that of Tango's closed form, z²/(n + z²)."""
    bound = 1.96**2 / (1000 + 1.96**2)
    assert tango(0, 0, 1000) == pytest.approx((-bound, bound), abs=1e-9)
    assert mcnemar(0, 0) == 1.0
    assert tango(5, 0, 5)[1] == 1.0


def log_likelihood(b: int, c: int, n: int, p: float, delta: float) -> float:
    """The log-likelihood of c's cell having probability p, and b's p + delta."""
    cells = ((b, p + delta), (c, p), (n - b - c, 1 - 2 * p - delta))
    return sum(k * log(q) if q > 0 else (0 if k == 0 else -math.inf) for k, q in cells)


def naive_score(b: int, c: int, n: int, delta: float) -> float:
    """The score statistic, with the nuisance probability found by searching for the maximum."""
    low, high = max(0.0, -delta), (1 - delta) / 2
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if log_likelihood(b, c, n, left, delta) < log_likelihood(b, c, n, right, delta):
            low = left
        else:
            high = right
    variance = n * (2 * low + delta * (1 - delta))
    return abs(b - c - n * delta) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("b", "c", "n"), [(1, 7, 21), (12, 2, 50), (40, 20, 160), (3, 1, 1000), (0, 9, 200), (6, 6, 30)]
)
def test_the_ends_are_where_the_score_is_z(b: int, c: int, n: int) -> None:
    low, high = tango(b, c, n)
    assert low < (b - c) / n < high
    for bound in (low, high):
        assert naive_score(b, c, n, bound) == pytest.approx(1.96, abs=1e-4)
    assert tango(c, b, n) == pytest.approx((-high, -low), abs=1e-9), "the other way round"


@pytest.mark.parametrize(("b", "c"), [(0, 5), (7, 1), (6, 6), (30, 12), (1, 0)])
def test_mcnemar_counts_all_that_is_as_unlikely(b: int, c: int) -> None:
    n = b + c
    at_most = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, b))
    assert mcnemar(b, c) == pytest.approx(at_most / 2**n)


def test_large_counts_do_not_overflow() -> None:
    assert 0 < mcnemar(30_000, 31_000) < 1e-4
    assert mcnemar(0, 60_000) == 0.0


@pytest.mark.parametrize("counts", [(-1, 2, 5), (3, 3, 5), (0, 0, 0)])
def test_invalid_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="are not counts"):
        tango(*counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "both", "first", "second"),
    [(100, 0.6, 0.1, 0.1), (200, 0.9, 0.04, 0.02), (1000, 0.95, 0.01, 0.002), (50, 0.2, 0.5, 0.1)],
)
def test_coverage(n: int, both: float, first: float, second: float) -> None:
    """95 % intervals hold the truth in 95 % of simulated test sets, within simulation error."""
    rng, trials, held, level = random.Random(n), 4000, 0, 0
    known: dict[tuple[int, int], tuple[float, float]] = {}
    for _ in range(trials):
        draws = rng.choices("abcd", (both, first, second, 1 - both - first - second), k=n)
        b, c = draws.count("b"), draws.count("c")
        low, high = known.setdefault((b, c), tango(b, c, n))
        held += low <= first - second <= high
        level += mcnemar(b, c) < 0.05
    assert 0.935 <= held / trials <= 0.97
    if first == second:
        assert level / trials <= 0.055, "the exact test keeps its level"


def cell(bits: str, **changes) -> Cell:
    padded = bits + "0" * (-len(bits) % 4)
    outcomes = f"{int(padded, 2):0{len(padded) // 4}x}"
    return replace(Cell(64, len(bits), 1, correct=bits.count("1"), outcomes=outcomes), **changes)


def test_compare_counts_sample_by_sample() -> None:
    pair = compare(cell("1100110"), cell("0100011"))
    assert (pair.samples, pair.only_first, pair.only_second) == (7, 2, 1)
    assert pair.difference == pytest.approx(1 / 7)
    assert compare(cell("0000000"), cell("0000000")).only_first == 0


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"length": 65}, {"decode": "greedy"}, {"outcomes": None}]
)
def test_other_samples_are_not_compared(changes: dict) -> None:
    assert compare(cell("1100110"), cell("0100011", **changes)) is None
    assert compare(cell("1100110"), cell("01000110")) is None


def found(*records: RunRecord, baseline: str | None = None) -> dict[str, tuple[str, list[int]]]:
    compared = differences(group_runs(records), baseline)
    return {d.group.name: (d.baseline.name, list(d.lengths)) for d in compared}


def test_only_runs_of_one_budget_are_compared(make: Make) -> None:
    """Softmax at 1,000 steps is no baseline of ASEntmax at 9,000, and none of itself either."""
    short, long = ({"steps": steps, "train_lengths": [8, 32]} for steps in (1000, 9000))
    records = [
        make({64: 500}, settings=short, group="a"),
        make({64: 600}, settings=long, group="b"),
        make({64: 700}, attention="asentmax", settings=long),
        make({64: 800}, attention="topk", settings={**short, "batch_size": 2}),
    ]
    (names,) = found(*records).items()
    assert names[0].startswith("asentmax") and "steps=9000" in names[0]
    assert names[1][0].startswith("softmax") and "steps=9000" in names[1][0]


def test_the_baseline(make: Make) -> None:
    kinds = ("asentmax", "nape"), ("asentmax", "rope"), ("softmax", "rope"), ("softmax", "nape")
    records = [make({32: 990, 64: 500}, attention=a, position=p) for a, p in kinds]
    both = [32, 64]
    assert found(*records) == {
        "asentmax · nape": ("softmax · nape", both),
        "asentmax · rope": ("softmax · rope", both),
        "softmax · rope": ("softmax · nape", both),
    }
    assert found(*records, baseline="asentmax") == {
        "softmax · nape": ("asentmax · nape", both),
        "softmax · rope": ("asentmax · rope", both),
    }
    assert found(*records, baseline="softmax · rope").keys() == {
        "asentmax · nape",
        "asentmax · rope",
        "softmax · nape",
    }
    assert found(*records[:2]) == {"asentmax · rope": ("asentmax · nape", both)}
    with pytest.raises(ValueError, match="no method is called softmx; did you mean softmax"):
        found(*records, baseline="softmx")


def configured(make: Make, attention: str, position: str = "nape", **model) -> RunRecord:
    config = {"model": {"layers": 1, "dropout": 0.0} | model, "position": {"name": position}}
    group = repr((attention, config))
    record = make({64: 500}, attention=attention, position=position, group=group)
    return replace(record, config=config)


def test_the_baseline_is_the_nearest_one(make: Make) -> None:
    """A field that is swept is not confounded with the method."""
    kinds = ("softmax", "topk")
    swept = [configured(make, kind, layers=n) for kind in kinds for n in (1, 4)]
    one, four = ([f"{kind} · nape, layers={n}" for kind in kinds] for n in (1, 4))
    expected = {four[0]: one[0], one[1]: one[0], four[1]: four[0]}
    assert {name: base for name, (base, _) in found(*swept).items()} == expected
    both = [
        configured(make, kind, position, layers=n)
        for kind in kinds
        for position in ("nape", "rope")
        for n in (1, 4)
    ]
    names = {name: base for name, (base, _) in found(*both).items()}
    assert names["topk · rope, layers=4"] == "softmax · rope, layers=4"
    assert names["softmax · rope, layers=4"] == "softmax · rope, layers=1"
    far = configured(make, "topk", layers=4, dropout=0.5)
    assert found(*swept[:2], far).popitem()[1][0] == "softmax · nape, layers=4, dropout=0"


def test_a_baseline_on_the_same_samples_comes_first(make: Make) -> None:
    near, far, topk = (
        configured(make, kind, layers=n)
        for kind, n in (("softmax", 4), ("softmax", 1), ("topk", 4))
    )
    near = replace(near, task={"symbols": 16})
    far, topk = (replace(record, task={"symbols": 32}) for record in (far, topk))
    compared = differences(group_runs([near, far, topk]))[-1]
    assert compared.baseline.best.record == far and list(compared.lengths) == [64]


def test_methods_without_a_baseline_are_named(make: Make) -> None:
    records = [
        make({64: 500}, settings={"steps": 1000}),
        make({64: 500}, settings={"steps": 9000}, attention="topk"),
    ]
    reason = "not compared, because there is no {} with the same steps, batch size and lengths."
    (note,) = notes_with("not compared", records)
    assert note == f"copy, topk · nape, steps=9000: {reason.format('other method')}"
    (note,) = notes_with("not compared", records, baseline="softmax")
    assert note == f"copy, topk · nape, steps=9000: {reason.format('softmax')}"
    assert not notes_with("not compared", records[:1])
    records = [make({64: 1}, attention=name) for name in ("softmax", "topk")]
    assert "The baseline is topk.\n" in table(records, baseline="topk")


def notes_with(text: str, records: list[RunRecord], **options) -> list[str]:
    return [note for note in json.loads(table(records, "json", **options))["notes"] if text in note]


def test_only_values_on_the_same_samples_are_compared(make: Make) -> None:
    softmax = make({32: 990, 64: 500, 128: 100, 256: 3})
    other = make({32: 990, 64: "out_of_memory", 128: 100}, attention="topk")
    assert found(softmax, other) == {"topk · nape": ("softmax · nape", [32, 128])}
    untrained = make({32: 10, 64: 0, 128: 0}, attention="topk")
    assert found(softmax, untrained) == {"topk · nape": ("softmax · nape", [32, 64, 128])}
    assert found(softmax, make({32: 99}, attention="topk", evaluation_seed=2)) == {
        "topk · nape": ("softmax · nape", [])
    }
    small = make({32: 990}, attention="topk", options={"name": "copy", "symbols": 16})
    large = replace(softmax, task={"name": "copy", "symbols": 32})
    one, other = "topk · nape, symbols=16", "softmax · nape, symbols=32"
    assert found(large, small) == {one: (other, [])}, "other options, other samples"
    assert "| topk · nape, symbols=16 | softmax · nape, symbols=32 | other test set |" in table(
        [large, small], baseline="symbols=32"
    )
    assert [group.name for group in group_runs([large, small])] == [
        "softmax · nape, symbols=32",
        "topk · nape, symbols=16",
    ]


def test_states_in_the_table(make: Make) -> None:
    records = [
        make({32: 990, 64: 500, 128: "skipped"}),
        make({32: 980, 64: "out_of_memory", 128: 100}, attention="topk"),
    ]
    text = table(records)
    section = text.partition("## Difference")[2].partition("## Every run")[0]
    row = next(line for line in section.splitlines() if line.startswith("| topk"))
    assert "| out of memory |" in row and "| baseline skipped |" in row
    assert "-1.0 [" in row and "p = " in row


def test_json_and_baseline_word(make: Make) -> None:
    records = [make({32: 990}), make({32: 980}, attention="topk")]
    (entry,) = json.loads(table(records, "json", baseline="topk"))["differences"]
    assert (entry["name"], entry["baseline"]) == ("softmax · nape", "topk · nape")
    at = entry["lengths"]["32"]
    assert at["difference"] == pytest.approx(0.01)
    assert at["only_first"] - at["only_second"] == 10
    assert at["interval"] == list(tango(at["only_first"], at["only_second"], 1000))
    with pytest.raises(ValueError, match="no method"):
        table(records, "csv", baseline="nothing")
