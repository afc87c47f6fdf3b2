"""results.json: round trips, merging, errors that name the file, and what a crash leaves."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcg.results import table
from lcg.runs.files import write_atomic
from lcg.runs.record import Cell, RecordError, RunRecord, Training
from lcg.runs.run import Run

Make = Callable[..., RunRecord]


def test_round_trip(make: Make, tmp_path: Path) -> None:
    record = make({64: 993, 4096: "out_of_memory"})
    assert record.save(tmp_path) == tmp_path / "results.json"
    assert RunRecord.load(tmp_path) == record
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["schema"] == 2
    assert stored["validation"]["32"] == {"exact_match": 1.0, "token_accuracy": 1.0}
    assert stored["ladder"][0]["correct"] == 993


def test_a_run_without_checkpoint_round_trips(make: Make, tmp_path: Path) -> None:
    cell = Cell(64, 1000, 1, state="not_finite", reason="no checkpoint")
    record = replace(make(), selection=None, validation={}).merge([cell])
    record.save(tmp_path)
    assert RunRecord.load(tmp_path) == record


def test_numbers_that_are_not_finite_become_null(make: Make, tmp_path: Path) -> None:
    training = Training("not_finite", 7, final_loss=math.nan, reason="loss is NaN at step 7")
    make(training=training).save(tmp_path)
    assert "NaN" not in (tmp_path / "results.json").read_text().replace("is NaN at", "")
    assert RunRecord.load(tmp_path).training.final_loss is None


def test_merge_replaces_the_same_evaluation_only(make: Make) -> None:
    record = make({64: 900, 128: "out_of_memory"})
    again = replace(record.ladder[0], correct=950, outcomes=None)
    fits_now = Cell(128, 1000, 1, step=2000, correct=700)
    others = [
        replace(again, samples=2000),
        replace(again, seed=2),
        replace(again, decode="greedy"),
        replace(again, step=1800),
        replace(again, step=None),
    ]
    merged = record.merge([fits_now, *others, again])
    assert len(merged.ladder) == 7
    assert again in merged.ladder
    assert record.ladder[0] not in merged.ladder
    assert [cell.state for cell in merged.ladder if cell.length == 128] == ["value"]
    assert len(record.ladder) == 2, "merging returns a copy"


cells = st.builds(
    Cell,
    length=st.sampled_from([32, 64]),
    samples=st.sampled_from([100, 1000]),
    seed=st.integers(1, 2),
    step=st.sampled_from([None, 10]),
    correct=st.integers(0, 100),
)


def test_merge_is_idempotent_and_the_last_word_wins(make: Make) -> None:
    empty = make()

    @given(st.lists(cells), st.lists(cells))
    def check(old: list[Cell], new: list[Cell]) -> None:
        merged = empty.merge(old).merge(new)
        assert merged.merge(new) == merged
        expected = {cell.key: cell for cell in [*old, *new]}
        assert {cell.key: cell for cell in merged.ladder} == expected
        assert len(merged.ladder) == len(expected)

    check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state": "oom", "reason": "x"}, "not one of value, skipped"),
        ({"state": "skipped"}, "needs a reason"),
        ({"state": "skipped", "reason": "x", "correct": 0}, "cannot have a count"),
        ({"correct": 11}, "11 correct of 10"),
        ({}, "None correct of 10"),
        ({"correct": 2, "outcomes": "80"}, "not 10 bits of which 2 are set"),
        ({"correct": 2, "outcomes": "800"}, "not 10 bits of which 2 are set"),
        ({"correct": 2, "outcomes": "801"}, "not 10 bits of which 2 are set"),  # in the padding
        ({"correct": 1, "outcomes": "8_0"}, "not 10 bits"),
        ({"correct": 2, "outcomes": "C00"}, "not 10 bits"),
        ({"state": "skipped", "reason": "x", "outcomes": "000"}, "not 10 bits"),
    ],
)
def test_a_cell_cannot_contradict_itself(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cell(64, 10, 1, **fields)


def test_outcomes_are_bits_of_which_sample_0_is_the_first() -> None:
    cell = Cell(64, 10, 1, correct=3, outcomes="a04")
    assert [i for i in range(10) if cell.bits >> (9 - i) & 1] == [0, 2, 9]
    assert Cell(64, 10, 1, correct=3).bits is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=3), "schema 3"),
        (lambda d: d.pop("hash"), "lacks hash"),
        (lambda d: d.update(colour="red"), "unknown colour"),
        (lambda d: d["labels"].pop("task"), "labels lack task"),
        (lambda d: d["labels"].update(task=3), "labels.task is 3, not str"),
        (
            lambda d: d["ladder"][0].update(outcomes=1),
            "outcomes is 1, not str or null",
        ),
        (lambda d: d["settings"].update(lr="1e-3"), "settings.lr is '1e-3', not float"),
        (lambda d: d["settings"].update(train_lengths="8-32"), "train_lengths is '8-32', not list"),
        (lambda d: d["settings"].update(train_lengths=[32, 8]), "not .shortest, longest."),
        (lambda d: d["ladder"][0].update(length="64"), r"ladder\[0\].length is '64', not int"),
        (lambda d: d["ladder"][0].update(correct=True), r"not int or null"),
        (lambda d: d["training"].update(status="done"), "'done' is not one of"),
        (lambda d: d["validation"].update({"long": {}}), "the key 'long' is not a whole number"),
        (lambda d: d.update(ladder={}), "ladder is {}, not list"),
        (lambda d: d["ladder"][0].update(token_accuracy=5.0), "token_accuracy is 5.0, not from"),
        (
            lambda d: d["ladder"][0].update(prefix=-0.1),
            r"ladder.0..prefix is -0.1, not from 0 to 1",
        ),
        (lambda d: d["ladder"][0].update(length=2**62), "length is 46116.*, not from 1 to 10000"),
        (lambda d: d["ladder"][0].update(seed=-1), r"ladder.0..seed is -1, not from 0"),
        (lambda d: d["validation"].update({"32": {"exact_match": 7}}), "exact_match is 7, not"),
        (lambda d: d["validation"].update({str(2**62): {}}), "is not a whole number"),
        (lambda d: d["selection"].update(step=-1), "selection.step is -1, not from 0"),
        (lambda d: d["training"].update(seconds=-1.0), "training.seconds is -1.0, not from 0"),
        (lambda d: d["settings"].update(seed=-5), "settings.seed is -5, not from 0"),
        (lambda d: d["settings"].update(lr=-0.1), "settings.lr is -0.1, not from 0 to 1000000"),
        (lambda d: d["settings"].update(train_lengths=[2**60, 1]), "115.*, not from 1 to 10000"),
        (lambda d: d["labels"].update(task="a\nb"), "labels.task is not one line"),
        (lambda d: d["labels"].update(task="a" * 100_000), "labels.task is not one line"),
        (lambda d: d["settings"].update(steps=10**4000), "'steps' is not a finite number"),
    ],
)
def test_load_names_file_and_fault(
    make: Make, tmp_path: Path, change: Callable, message: str
) -> None:
    data = make({64: 993}).to_dict()
    change(data)
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(RecordError, match=message) as error:
        RunRecord.load(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_saved_checkpoints_are_read(make: Make, tmp_path: Path) -> None:
    """Options of a user's class may be larger than a machine's whole numbers."""
    options = {"prime": 2**89 - 1, "base": 1e300, "least": -(10**299), "rate": float("inf")}
    record = replace(make({64: 993}, options=options), config={"task": options})
    record.save(tmp_path)
    assert RunRecord.load(tmp_path).config["task"] == options | {"rate": None}


def test_unreadable_results_are_not_saved(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'prime' is not a finite number"):
        make({64: 993}, options={"prime": 10**400}).save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b'{"schema": 1,', b"\xff\xfe", b"[]", b""])
def test_load_refuses_other_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"results\.json: .*restore the file"):
        RunRecord.load(tmp_path)


def test_load_of_a_folder_without_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such file; train this run first"):
        RunRecord.load(tmp_path / "nowhere")


def test_of_two_who_add_to_a_record_both_do(make: Make, tmp_path: Path) -> None:
    """Each loads, waits, and saves: without the lock the last to save would be the only one."""
    make({}).save(tmp_path)

    def add(length: int) -> None:
        with RunRecord.updating(tmp_path):
            record = RunRecord.load(tmp_path)
            time.sleep(0.01)
            record.merge([Cell(length, 10, 0, correct=5)]).save(tmp_path)

    threads = [threading.Thread(target=add, args=(length,)) for length in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cell.length for cell in RunRecord.load(tmp_path).ladder] == list(range(1, 9))


def test_a_crash_before_the_rename_leaves_the_old_record(make: Make, tmp_path: Path) -> None:
    """A process killed between writing and renaming leaves its temporary file behind."""
    folder = tmp_path / "run"
    make({64: 993}).save(folder)
    script = (
        "import os, sys; from lcg.runs.files import write_atomic\n"
        "os.replace = lambda *names: os._exit(9)\n"
        "write_atomic(sys.argv[1], 'half a rec')"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(folder / "results.json")]
    assert subprocess.run(command, cwd=root, check=False).returncode == 9
    assert len(list(folder.iterdir())) == 2, "the temporary file is still there"
    assert [run.record for run in Run.find([tmp_path])] == [make({64: 993})]


def test_a_failed_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_atomic(tmp_path / "new" / "note.txt", "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(target, b"new")
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_load_runs_finds_runs_at_any_depth_once(make: Make, tmp_path: Path) -> None:
    for seed, place in enumerate(["b/deep/run1", "a/run0", ".hidden/run2"]):
        make(seed=seed).save(tmp_path / place)
    (tmp_path / "a" / "other").mkdir()
    runs = Run.find([tmp_path, tmp_path / "a" / "run0", tmp_path / "a/run0/results.json"])
    assert [run.record.seed for run in runs] == [1, 0], "by path, hidden folders left out"
    runs = Run.find([str(tmp_path / "b"), tmp_path])
    assert [run.record.seed for run in runs] == [0, 1]


def broken_runs(make: Make, folder: Path) -> None:
    """Two good runs among everything that can be wrong with one."""
    for place, seed in (("run1", 1), ("run2", 2), ("same", 1), ("half", 0), ("locked/in", 0)):
        make(seed=seed).save(folder / place)
    whole = (folder / "half" / "results.json").read_text()
    (folder / "half" / "results.json").write_text(whole[: len(whole) // 2])
    for place, text in (("foreign", "[]"), ("deep", "[" * 100_000)):
        (folder / place).mkdir()
        (folder / place / "results.json").write_text(text)
    for place in ("new", "new/wandb/files", "project", "project/wandb/latest-run/files"):
        (folder / place).mkdir(parents=True)
        (folder / place / "config.yaml").write_text("task: copy")
    make(seed=3).save(folder / "project" / "runs" / "run3")


def test_load_runs_reports_every_problem_and_continues(make: Make, tmp_path: Path) -> None:
    broken_runs(make, tmp_path)
    lines: list[str] = []
    runs = Run.find([tmp_path, tmp_path / "nowhere"], lines.append)
    good = ["locked/in", "project/runs/run3", "run1", "run2"]
    assert [str(run.path.relative_to(tmp_path)) for run in runs] == good
    assert [run.record.seed for run in runs] == [0, 3, 1, 2]
    expected = {
        "deep/results.json: nested too deeply",
        "foreign/results.json: record is [], not dict",
        "half/results.json: not valid JSON",
        "new: no results.json yet; its training has not begun",
        f"same: the same run as {tmp_path / 'run1'}; name one of the two",
        "nowhere: no such folder",
    }
    assert len(lines) == len(expected)
    assert all(any(f"{tmp_path}/{text}" in line for line in lines) for text in expected)
    assert not any("\n" in line for line in lines)
    with pytest.raises(RecordError) as error:
        Run.find([tmp_path])
    assert all(text in str(error.value) for text in expected - {"nowhere: no such folder"})


def test_a_folder_that_cannot_be_entered(make: Make, tmp_path: Path, monkeypatch) -> None:
    make().save(tmp_path / "open")
    make(seed=1).save(tmp_path / "closed" / "run")
    scandir = os.scandir

    def closed(path):  # root, as which tests may run, can enter everything
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    lines: list[str] = []
    assert len(Run.find([tmp_path], lines.append)) == 1
    assert lines == [f"{tmp_path / 'closed'}: cannot be entered (Permission denied)"]


def test_load_runs_where_nothing_can_be_read(make: Make, tmp_path: Path) -> None:
    for place in ("run1", "run2"):
        make().save(tmp_path / place)
        (tmp_path / place / "results.json").write_text("{")
    lines: list[str] = []
    with pytest.raises(RecordError, match="nothing to show"):
        Run.find([tmp_path], lines.append)
    assert len(lines) == 2


def mutations(data, path=()):
    """Every place in a JSON document, deepest last."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from mutations(value, (*path, key))
        else:
            yield (*path, key)


def test_any_defect_of_a_record_is_one_line_or_harmless(make: Make, tmp_path: Path) -> None:
    """Each part in turn is taken away or replaced by something else."""
    make(seed=5).save(tmp_path / "good")
    original = make({64: 993, 128: "skipped"}).to_dict()
    refused = 0
    for path in mutations(original):
        for value in (None, -1, "x", [], {}, [None], {"x": None}, ...):
            data = json.loads(json.dumps(original))
            where = data
            for key in path[:-1]:
                where = where[key]
            if not path:
                data = None if value is ... else value
            elif value is ...:
                del where[path[-1]]
            else:
                where[path[-1]] = value
            (tmp_path / "bad").mkdir(exist_ok=True)
            (tmp_path / "bad" / "results.json").write_text(json.dumps(data))
            lines: list[str] = []
            records = [run.record for run in Run.find([tmp_path], lines.append)]
            refused += len(lines)
            assert len(records) + len(lines) == 2, (path, value)
            for kind in ("markdown", "csv", "json"):
                assert table(records, kind)
    assert refused > 100


@pytest.mark.parametrize(("name", "problem"), [("", "below it"), ("nowhere", "no such folder")])
def test_load_runs_of_a_path_without_runs(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        Run.find([tmp_path / name])
