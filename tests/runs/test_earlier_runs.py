"""Run directories that an earlier lcg (commit 1084704) made load, evaluate and resume.

earlier/stopped/KIND: a run of 6 steps that SIGTERM stopped at step 3, evaluated then.
earlier/whole/KIND: record and metrics of the same run when nothing stopped it.
"""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lcg.config import identity, load_config
from lcg.evaluation.evaluate import evaluate_and_log, load_model
from lcg.runs.checkpoints import load
from lcg.runs.record import RunRecord
from lcg.runs.run import Run

EARLIER = Path(__file__).parent / "earlier"
KINDS = ["decoder", "encoder", "encoder_decoder"]


@pytest.fixture(params=KINDS)
def stopped(request, tmp_path: Path) -> Run:
    """A copy of an earlier run that was stopped."""
    return Run(shutil.copytree(EARLIER / "stopped" / request.param, tmp_path / request.param))


def same_cells(found, expected) -> None:
    """Check that the measures of earlier cells are the same; seconds and later measures are not."""
    later = dict.fromkeys(("oracle_length", "edit_distance", "by_part", "by_distance"))
    for cell, earlier in zip(found, expected, strict=True):
        assert replace(cell, seconds=0.0, **later) == replace(earlier, seconds=0.0)


def test_an_earlier_run_loads(stopped):
    record = stopped.record
    assert identity(stopped.config) == record.hash == stopped.provenance["identity"]
    assert record.settings["kind"] == stopped.path.name
    assert (record.training.status, record.training.step) == ("interrupted", 3)
    steps, losses = stopped.metrics["train/loss"]
    assert steps == [1, 2, 3] and losses[-1] == record.training.final_loss
    assert load(stopped.checkpoints / "last.ckpt")["global_step"] == 3
    _, step = load_model(stopped.path, stopped.config)
    assert step == 2


def test_an_earlier_run_evaluates_to_the_same_cells(stopped):
    before = stopped.record
    replace(before, ladder=()).save(stopped.path)
    same_cells(evaluate_and_log(stopped.path, stopped.config, "cpu"), before.ladder)
    same_cells(RunRecord.load(stopped.path).ladder, before.ladder)


def test_an_earlier_run_resumes_to_the_end_of_one_that_nothing_stopped(stopped):
    from lcg.training.loop import train

    words = stopped.provenance["command"][2:]
    words[words.index("runs=stopped")] = f"runs={stopped.path.parent}"
    config = load_config(words)
    assert train(config, progress=False).status == "finished"
    evaluate_and_log(stopped.path, config, "cpu")
    whole = EARLIER / "whole" / stopped.path.name
    found, expected = RunRecord.load(stopped.path), RunRecord.load(whole)
    for part in ("hash", "group", "labels", "settings", "task", "config", "fate"):
        assert getattr(found, part) == getattr(expected, part)
    assert found.selection == expected.selection and found.validation == expected.validation
    later = [cell for cell in found.ladder if cell.step == expected.selection.step]
    same_cells(later, expected.ladder)
    for row, other in zip(rows(stopped.metrics_file), rows(whole / "metrics.csv"), strict=True):
        assert row == pytest.approx(other, rel=1e-5)


def rows(path: Path) -> list[dict[str, float]]:
    """The numbers of a metrics.csv by column, without times and speeds."""
    with path.open() as file:
        return [
            {key: float(text) for key, text in row.items() if text and "second" not in key}
            for row in csv.DictReader(file)
        ]
