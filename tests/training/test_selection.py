"""Which checkpoint is the best, and what the record says where the monitor could not tell."""

import itertools
from dataclasses import replace

import pytest
import torch
from processes import checkpoint, record

from lcg.runs import checkpoints
from lcg.runs.metrics import Tracking
from lcg.runs.record import Cell, RunRecord, Training
from lcg.tasks.streams import eval_batch
from lcg.training import validation as validation_module
from lcg.training.loop import train
from lcg.training.signals import StopRequest
from lcg.training.validation import LadderValidation, selection_key


def candidate(exact_match, token_accuracy, step):
    return {"exact_match": exact_match, "token_accuracy": token_accuracy, "step": step}


def test_exact_match_then_token_accuracy_then_the_later_step():
    order = [
        candidate(0.0, 0.1, 900),
        candidate(0.0, 0.2, 100),
        candidate(0.0, 0.2, 200),
        candidate(0.5, 0.1, 50),
        candidate(0.5, 0.6, 40),
    ]
    for a, b in itertools.pairwise(order):
        assert selection_key(a) < selection_key(b)


@pytest.fixture
def validate(config, tmp_path, monkeypatch):
    """Validate at a step with made-up results by length; returns the validation."""
    validations = {}

    def cells(results):
        for length, result in results.items():
            common = {"length": length, "samples": 100, "seed": 0}
            if isinstance(result, str):
                yield Cell(**common, state=result, reason="told so")
            else:
                correct, accuracy = result
                yield Cell(**common, correct=correct, token_accuracy=accuracy)

    def validate(step, results, *words):
        options = config(*words)
        if words not in validations:
            validations[words] = LadderValidation(options, tmp_path, Tracking(), StopRequest())
        monkeypatch.setattr(validation_module, "evaluate_lengths", lambda *a, **k: cells(results))
        model = torch.nn.Linear(1, 1)
        model.weight.data.fill_(step)
        validations[words].run(model, step)
        return validations[words]

    return validate


def best_weights(tmp_path):
    return checkpoints.load(tmp_path / "best.ckpt")["state_dict"]["weight"].item()


def test_the_best_at_the_monitored_length_is_kept(validate, tmp_path):
    validate(10, {4: (90, 0.9), 8: (10, 0.5)})
    validate(20, {4: (10, 0.1), 8: (50, 0.4)})
    validation = validate(30, {4: (99, 0.9), 8: (40, 0.9)})
    assert best_weights(tmp_path) == 20
    assert validation.selection() == {
        "step": 20,
        "monitor": "val/len_8/exact_match",
        "value": 0.5,
        "token_accuracy": 0.4,
        "degenerate": False,
        "reason": "",
    }


def test_the_monitor_is_an_option(validate, tmp_path):
    for step, results in ((10, {4: (90, 0.9), 8: (10, 0.5)}), (20, {4: (10, 0.1), 8: (50, 0.4)})):
        validation = validate(step, results, "validation.monitor=4")
    assert best_weights(tmp_path) == 10
    assert validation.selection()["monitor"] == "val/len_4/exact_match"


def test_a_flat_monitor_never_keeps_the_first_checkpoint(validate, tmp_path):
    for step in (10, 20, 30):
        validation = validate(step, {4: (0, 0.1), 8: (0, 0.05)})
    assert best_weights(tmp_path) == 30
    selection = validation.selection()
    assert selection["degenerate"]
    assert selection["reason"] == (
        "val/len_8/exact_match was 0 at all 3 validations; "
        "token accuracy, then the later step decided"
    )


def test_a_flat_monitor_leaves_it_to_token_accuracy(validate, tmp_path):
    for step, accuracy in ((10, 0.1), (20, 0.3), (30, 0.2)):
        validation = validate(step, {4: (0, 0.9), 8: (0, accuracy)})
    assert best_weights(tmp_path) == 20
    assert validation.selection()["degenerate"]


def test_one_validation_is_not_degenerate(validate):
    assert not validate(10, {4: (0, 0.1), 8: (0, 0.05)}).selection()["degenerate"]


def test_a_monitored_length_without_a_value_leaves_it_to_a_shorter_one(validate, tmp_path):
    for step, correct in ((10, 30), (20, 80), (30, 70)):
        validation = validate(step, {4: (correct, 0.5), 8: "out_of_memory"})
    assert best_weights(tmp_path) == 20
    selection = validation.selection()
    assert selection["value"] is None and selection["degenerate"]
    assert selection["reason"] == (
        "val/len_8/exact_match has no value (out of memory: told so); length 4 decided"
    )
    # One that has a value is preferred whatever the other says.
    validation = validate(40, {4: (1, 0.1), 8: (1, 0.1)})
    assert best_weights(tmp_path) == 40


def test_without_any_value_there_is_no_best(validate, tmp_path):
    validation = validate(10, {4: "not_finite", 8: "not_finite"})
    assert validation.selection() is None
    assert not (tmp_path / "best.ckpt").exists()


def test_another_monitor_starts_anew(validate, capsys):
    state = validate(10, {4: (90, 0.9), 8: (10, 0.5)}).state_dict()
    resumed = validate(20, {4: (0, 0.0), 8: (0, 0.0)}, "validation.monitor=4")
    resumed.load_state_dict(state | {"best": state["best"]})
    assert "length changed from 8 to 4" in capsys.readouterr().err
    assert resumed.best["step"] == 20  # what it had; nothing of the other monitor's


def test_the_record_tells_the_selection(config):
    outcome = train(config(), progress=False)
    selection = record(outcome.directory)["selection"]
    best = checkpoint(outcome.directory, "best")
    assert selection["step"] == best["step"]
    history = checkpoint(outcome.directory)["callbacks"]["LadderValidation"]["history"]
    assert [entry["step"] for entry in history] == [15, 30]
    assert max(history, key=selection_key)["step"] == best["step"]


def test_validation_samples_are_not_test_samples(config, monkeypatch):
    splits = []
    evaluate_lengths = validation_module.evaluate_lengths

    def spy(model, test_sets, **options):
        splits.extend(test_set.split for test_set in test_sets)
        return evaluate_lengths(model, test_sets, **options)

    monkeypatch.setattr(validation_module, "evaluate_lengths", spy)
    options = config()
    train(options, progress=False)
    assert splits == ["validation"] * 4, "two lengths, twice"
    streams = [
        {tuple(row) for row in eval_batch(options.task, 0, split, 16, 0, 200).inputs}
        for split in ("validation", "test")
    ]
    assert not streams[0] & streams[1]


def test_the_best_model_is_the_one_that_was_validated(config):
    """best.ckpt, loaded for evaluation, scores on the validation set what the record says."""
    from lcg.evaluation.evaluate import load_model
    from lcg.evaluation.ladder import evaluate_lengths
    from lcg.evaluation.test_sets import TestSet

    options = config("trainer.steps=300", "validation.every=100", "optimizer.lr=1e-2")
    outcome = train(options, progress=False)
    model, step = load_model(outcome.directory, options)
    assert step == record(outcome.directory)["selection"]["step"]
    sets = [TestSet(options, "validation", length, 8) for length in (4, 8)]
    for cell in evaluate_lengths(model, sets):
        saved = record(outcome.directory)["validation"][str(cell.length)]
        assert saved["token_accuracy"] == pytest.approx(cell.token_accuracy)
        assert saved["exact_match"] == pytest.approx(cell.exact_match)
    assert saved["token_accuracy"] > 0.1


def test_training_ends_once_it_is_solved(config, monkeypatch):
    """At step 15 of 30, where it validates; it is finished then, wherever it was killed."""

    def solved(model, test_sets, **options):
        for test_set in test_sets:
            right = test_set.samples if test_set.length == 8 else 0
            yield test_set.cell(
                "teacher_forcing", options["step"], correct=right, token_accuracy=0.5
            )

    monkeypatch.setattr(validation_module, "evaluate_lengths", solved)
    options = config("trainer.stop_when_solved=true")
    outcome = train(options, progress=False)
    assert (outcome.status, outcome.step) == ("finished", 15)
    assert checkpoint(outcome.directory)["global_step"] == 15
    written = (outcome.directory / "metrics.csv").read_bytes()

    found = RunRecord.load(outcome.directory)
    assert (found.training.step, found.selection.step) == (15, 15)
    replace(found, training=Training("running", 15)).save(outcome.directory)
    again = train(options, progress=False)
    assert (again.status, again.step, again.already) == ("finished", 15, False)
    assert (outcome.directory / "metrics.csv").read_bytes() == written
    assert train(config("seed=1"), progress=False).step == 30
    other = config("trainer.stop_when_solved=true", "validation.monitor=4", "seed=2")
    assert train(other, progress=False).step == 30
