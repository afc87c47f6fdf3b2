"""The cell that stands for a length, the run that stands for a group, a group's name."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lcg.results.aggregate import RunResult, group_runs
from lcg.runs.record import Cell, RunRecord, Selection, Training

Make = Callable[..., RunRecord]


def test_the_cell_of_a_length(make: Make) -> None:
    selected = Cell(64, 100, 1, step=2000, correct=50)
    more = replace(selected, samples=1000, correct=510)
    stale = replace(selected, samples=5000, step=1800)
    broken = Cell(64, 9000, 1, step=2000, state="out_of_memory", reason="x")
    run = RunResult(make().merge([stale, broken, selected, more]))
    assert run.cells == {64: more}
    assert RunResult(make().merge([stale])).cells == {64: stale}


@pytest.mark.parametrize(
    ("ladder", "validation", "trained"),
    [
        ({16: 500, 32: 100}, {32: (0.0, 0.0)}, True),  # the shortest test length comes first
        ({16: 499, 32: 900}, {32: (1.0, 1.0)}, False),
        ({16: "out_of_memory", 32: 900}, {32: (0.0, 0.0)}, True),
        ({16: "not_finite", 32: 900}, {32: (1.0, 1.0)}, False),
        ({64: 0}, {16: (0.0, 0.0), 32: (0.6, 0.9), 128: (0.0, 0.0)}, True),
        ({64: 1000}, {32: (0.4, 0.9)}, False),
        ({64: 1000}, {128: (1.0, 1.0)}, None),
        ({64: "did_not_train"}, {128: (0.0, 0.0)}, False),
        ({4: 100, 32: 900}, {}, True),  # shorter than any in training
        ({4: 1000}, {4: (1.0, 1.0), 32: (0.4, 0.9)}, False),
        ({4: 1000}, {4: (1.0, 1.0)}, None),
    ],
)
def test_trained(make: Make, ladder: dict, validation: dict, trained: bool | None) -> None:
    assert RunResult(make(ladder, validation=validation)).trained is trained


def test_a_run_that_diverged_did_not_train(make: Make) -> None:
    record = make(training=Training("not_finite", 3, reason="loss is NaN"))
    assert RunResult(replace(record, validation={})).trained is False


def test_a_run_under_way_is_not_judged_by_its_validation(make: Make) -> None:
    record = make({}, validation={32: (0.1, 0.9)}, training=Training("running", 300))
    assert RunResult(record).trained is None


def test_a_run_that_did_not_train_keeps_its_numbers(make: Make) -> None:
    run = RunResult(make({32: 30, 64: 10, 128: "skipped"}))
    states = {length: run.state(length) for length in (32, 64, 128, 256)}
    assert states == {32: "value", 64: "value", 128: "skipped", 256: None}
    assert run.trained is False
    assert [run.value(length) for length in (32, 64, 128)] == [0.03, 0.01, None]


def test_groups_and_statistics_at_the_selected_learning_rate(make: Make) -> None:
    good, bad = {128: (0.9, 1.0)}, {128: (0.1, 1.0)}
    records = [
        make({32: 1000}, seed=1, lr=0.003, validation=good),
        make({32: 100}, seed=0, lr=0.003, validation=bad),
        make({32: 1000}, seed=0, lr=0.001, validation=bad),
        make({32: 1000}, attention="entmax"),
    ]
    entmax, softmax = group_runs(records)
    assert (entmax.name, softmax.name) == ("entmax · nape", "softmax · nape")
    assert [(r.record.lr, r.record.seed) for r in softmax.runs] == [
        (0.001, 0),
        (0.003, 0),
        (0.003, 1),
    ]
    assert (softmax.lr, len(softmax.seeds), softmax.trained) == (0.003, 2, 1)
    assert softmax.beyond_grid == pytest.approx(0.009)
    assert entmax.beyond_grid is None, "one learning rate is no grid"


def test_a_bracketed_learning_rate_needs_no_extension(make: Make) -> None:
    records = [make(lr=lr, validation={128: (v, 1.0)}) for lr, v in [(1, 0), (2, 1.0), (4, 0)]]
    assert group_runs(records)[0].beyond_grid is None
    assert group_runs(records[1:])[0].beyond_grid == pytest.approx(1.0)


def test_names_tell_groups_apart(make: Make) -> None:
    long = make(group="a", settings={"steps": 4000, "train_lengths": [8, 64]})
    assert [g.name for g in group_runs([make(group="b"), long])] == [
        "softmax · nape, max_length=32, steps=2000",
        "softmax · nape, max_length=64, steps=4000",
    ]
    wide = make(group="c", settings={"parameters": 9})
    names = [g.name for g in group_runs([make(group="b"), wide])]
    assert names == ["softmax · nape, parameters=9", "softmax · nape, parameters=123456"]
    twins = [g.name for g in group_runs([make(group="b"), make(group="d")])]
    assert twins == ["softmax · nape, run b-s0-lr0.001", "softmax · nape, run d-s0-lr0.001"]
    wide_entmax = make(attention="entmax", settings={"parameters": 9})
    names = [g.name for g in group_runs([make(), wide_entmax])]
    assert names == ["entmax · nape", "softmax · nape"], "parameters follow from the method"


def test_names_tell_kinds_of_models_apart(make: Make) -> None:
    """A record that does not say its kind, as all did once, is of a decoder."""
    other = make(group="e", settings={"kind": "encoder_decoder", "parameters": 9})
    for decoder in (make(group="d"), make(group="d", settings={"kind": "decoder"})):
        names = [group.name for group in group_runs([decoder, other])]
        assert names == ["softmax · nape, kind=decoder", "softmax · nape, kind=encoder_decoder"]
    both = [make(group="d"), make(group="e", attention="entmax", settings={"kind": "decoder"})]
    assert [group.name for group in group_runs(both)] == ["entmax · nape", "softmax · nape"]


def test_a_cell_of_another_step_yields_to_the_selected_one(make: Make) -> None:
    record = make({64: 900}, step=1000, selection=Selection(2000, "val"))
    assert RunResult(record).cells[64].step == 1000
    fresh = Cell(64, 100, 1, step=2000, state="out_of_memory", reason="x")
    assert RunResult(record.merge([fresh])).cells[64] == fresh
