"""`lcg select`: a tie is followed upward, on samples nobody else uses, once, and for good."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from tiny import quick

from lcg.cli import main
from lcg.evaluation import evaluate, ladder
from lcg.evaluation.evaluate import load_model
from lcg.evaluation.test_sets import TestSet
from lcg.runs.files import locked
from lcg.runs.record import Cell, RunRecord, Validation

TINY = quick("evaluation.after_training=false")
TIED = {4: (1.0, 1.0), 8: (1.0, 1.0)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Three seeds of a tiny run, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        for seed in range(3):
            assert main(["train", *TINY, f"seed={seed}"]) == 0
    return folder / "runs"


@pytest.fixture
def tied(trained, here) -> list[Path]:
    """The three seeds, of which the first two tie where they were validated."""
    shutil.copytree(trained, here / "runs")
    directories = sorted((here / "runs").iterdir(), key=lambda d: RunRecord.load(d).seed)
    for directory, scores in zip(directories, (TIED, TIED, {8: (0.9, 1.0)}), strict=True):
        edit(directory, validation=scores)
    return directories


def edit(directory: Path, validation=None, status=None, step=None) -> None:
    """Write something else into a record."""
    body = json.loads((directory / "results.json").read_text())
    if validation is not None:
        body["validation"] = {
            str(n): {"exact_match": em, "token_accuracy": tokens}
            for n, (em, tokens) in validation.items()
        }
    if status is not None:
        body["training"]["status"] = status
    if step is not None:
        body["selection"]["step"] = step
    (directory / "results.json").write_text(json.dumps(body))


def lengths(directory: Path) -> list[int]:
    return list(RunRecord.load(directory).validation)


def independent(directory: Path, length: int) -> Validation:
    """The result that longer validation must have, from the ladder itself."""
    from lcg.runs.run import Run

    config = Run(directory).config
    model, step = load_model(directory, config)
    test_set = TestSet(config, "validation", length, 16)
    (cell,) = ladder.evaluate_lengths(model, [test_set], step=step)
    return Validation(cell.exact_match, cell.token_accuracy)


@pytest.mark.parametrize("first", ["exact_match", "token_accuracy"])
def test_numbers_are_named_in_the_order_that_they_decide_in(call, tied, first):
    edit(tied[2], validation={4: (0.0, 0.028)})
    code, out, _ = call("select", str(tied[2]), "--metric", first)
    names = ["exact match 0.00 %", "token accuracy 2.80 %"]
    order = names if first == "exact_match" else names[::-1]
    assert code == 0 and f"   4: {', '.join(order)}" in out


def test_a_tie_is_broken_by_a_longer_length_and_stays_broken(call, tied, monkeypatch):
    code, out, err = call("select", "runs")
    assert code == 0
    assert "2 runs tie up to length 8" in err
    assert [lengths(directory) for directory in tied] == [[4, 8, 16], [4, 8, 16], [8]]
    found = [RunRecord.load(directory).validation[16] for directory in tied[:2]]
    assert found == [independent(directory, 16) for directory in tied[:2]]
    ahead = max(0, 1, key=lambda seed: (found[seed].exact_match, found[seed].token_accuracy))
    assert found[0] != found[1]
    first = out.splitlines()[0]
    assert first == f"copy, softmax · nape: runs/{tied[ahead].name}"
    assert "tie by validation" not in call("table", "runs")[1]

    def no_more(*args):
        raise AssertionError("validated again")

    monkeypatch.setattr(evaluate, "validate", no_more)
    assert call("select", "runs")[:2] == (0, out)


def test_training_on_and_evaluating_keep_it_while_the_checkpoint_stays(call, tied):
    assert call("select", "runs")[0] == 0
    found = RunRecord.load(tied[0]).validation[16]
    assert call("eval", str(tied[0]), "lengths=4")[0] == 0
    assert RunRecord.load(tied[0]).validation[16] == found
    edit(tied[0], status="interrupted")
    again = [*TINY, "seed=0"]
    assert call("train", *again)[0] == 0
    record = RunRecord.load(tied[0])
    assert (record.training.status, lengths(tied[0])) == ("finished", [4, 8, 16])
    assert record.validation[16] == found
    edit(tied[0], status="interrupted", step=1)  # it was of another checkpoint
    assert call("train", *again)[0] == 0
    assert lengths(tied[0]) == [4, 8]


def constant(cell: dict):
    def evaluate_lengths(model, test_sets, *, step, **options):
        for s in test_sets:
            yield Cell(s.length, s.samples, s.seed, step=step, **cell)

    return evaluate_lengths


def test_a_lasting_tie_is_followed_to_the_limit_and_reported(call, tied, monkeypatch):
    equal = {"correct": 16, "token_accuracy": 1.0}
    monkeypatch.setattr(evaluate, "evaluate_lengths", constant(equal))
    code, out, _ = call("select", "runs")
    assert code == 0
    assert lengths(tied[0]) == lengths(tied[1]) == [4, 8, 16, 32, 64], "8 times the monitored 8"
    assert "2 runs still tie" in out and "--longest=128 tries" in out
    assert "2 runs tie by validation up to length 64" in call("table", "runs")[1]
    assert "--longest=256 tries" in call("select", "runs", "--longest=128")[1]
    assert lengths(tied[1])[-1] == 128


def test_out_of_memory_ends_the_comparison(call, tied, monkeypatch):
    full = {"state": "out_of_memory", "reason": "needs 31 GiB"}
    monkeypatch.setattr(evaluate, "evaluate_lengths", constant(full))
    code, out, _ = call("select", "runs")
    assert code == 0
    assert "at length 16: out of memory (needs 31 GiB)" in out
    assert lengths(tied[0]) == [4, 8]


def test_a_run_that_is_being_trained_is_left_alone(call, tied):
    with locked(tied[0]):
        code, out, _ = call("select", "runs")
    assert code == 0
    assert "is being trained by process" in out
    assert lengths(tied[0]) == [4, 8]


def test_a_run_without_its_checkpoint_or_with_another(call, tied):
    edit(tied[0], step=1)
    assert "best.ckpt has step" in call("select", "runs")[1]
    (tied[0] / "checkpoints" / "best.ckpt").unlink()
    assert "has no best.ckpt" in call("select", "runs")[1]


def test_a_degenerate_monitor_is_reported(call, tied):
    for directory in tied:
        edit(directory, validation={8: (0.0, 0.1)})
    code, out, _ = call("select", "runs", "--longest=8")
    assert code == 0
    said = "selection metric never changed: exact match at validation length 8 is 0 in all 3 runs"
    assert said in out


def test_no_torch_where_nothing_ties(tied, process):
    for seed, directory in enumerate(tied):
        edit(directory, validation={8: (seed / 4, 1.0)})
    script = "import sys; from lcg.cli import main; main(['select', 'runs']); "
    done = process("-c", script + "sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
    assert tied[2].name in done.stdout
