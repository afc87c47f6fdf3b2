"""Options changed at evaluation: what may change, what stays, and that cells never mix."""

import contextlib
import shutil
from pathlib import Path

import pytest
import torch
from tiny import train_tiny

from lcg.config import ConfigError, load_config, with_changes
from lcg.evaluation.evaluate import check_tensors, evaluate_and_log, load_model
from lcg.evaluation.ladder import evaluate_lengths
from lcg.evaluation.test_sets import ladder_of
from lcg.registry import find
from lcg.runs.record import RunRecord
from lcg.runs.run import Run

PUBLISHED = Path(__file__).parents[1] / "extension" / "published"
YARN = ["position=./yarn.py:YaRN", "position.scale=4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of plain RoPE."""
    folder = tmp_path_factory.mktemp("changes")
    with contextlib.chdir(folder):
        words = ("position=rope", "position.base=500", "name=run", "attention.scaling=log")
        return train_tiny(*words, "evaluation.lengths=4,8").resolve()


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("yarn", "t5"):
        shutil.copy(PUBLISHED / f"{name}.py", f"{name}.py")
    return shutil.copytree(trained, tmp_path / "runs" / "run")


def evaluate(run, words):
    config, changes = with_changes(Run(run).config, words)
    return evaluate_and_log(run, config, "cpu", changes)


def what_was_found(cells):
    return [(c.key, c.correct, c.outcomes, c.token_accuracy, c.prefix) for c in cells]


def test_options_not_given_keep_the_runs_values(run):
    own = Run(run).config
    config, changes = with_changes(own, YARN)
    assert (config.position.name, config.position.base, config.position.scale) == ("yarn", 500, 4)
    assert config.position.train_length == own.task.token_length(own.data.max_length)
    assert config.attention.scaling == own.attention.scaling
    digest = changes.pop("position.source")
    assert changes == {"position.name": "yarn", "position.scale": 4.0}
    assert digest and own.position.name == "rope", "the run's own config is left alone"
    config, changes = with_changes(own, ["position.base=700", "attention.normalizer=topk"])
    assert (config.position.base, config.attention.scaling.name) == (700, "log")
    assert changes == {
        "position.base": 700.0,
        "attention.normalizer.name": "topk",
        "attention.normalizer.k": 32,
    }


@pytest.mark.parametrize("words", [[], ["position.base=500"], ["position=rope"]])
def test_changes_equal_to_the_run_are_the_run(run, words):
    config, changes = with_changes(Run(run).config, words)
    assert changes == {} and config.position == Run(run).config.position


def test_a_training_length_is_a_change_only_where_it_is_another(run):
    own = Run(run).config
    length = int(own.task.token_length(own.data.max_length))
    assert with_changes(own, YARN)[1] == with_changes(own, [*YARN, _train(length)])[1]
    assert with_changes(own, [*YARN, _train(99)])[1]["position.train_length"] == 99


def _train(length: int) -> str:
    return f"position.train_length={length}"


def test_two_evaluations_give_the_same_cells_and_leave_the_runs_own(run):
    own = evaluate(run, [])
    found = evaluate(run, YARN)
    record = RunRecord.load(run)
    assert len(record.ladder) == 4
    assert what_was_found(record.ladder) != what_was_found(own)
    assert evaluate(run, YARN) == found and RunRecord.load(run) == record, "nothing is done twice"
    RunRecord.from_dict(record.to_dict() | {"ladder": []}).save(run)
    assert what_was_found(evaluate(run, YARN)) == what_was_found(found)
    assert what_was_found(evaluate(run, [])) == what_was_found(own)


@torch.no_grad()
def test_the_cells_are_those_of_the_runs_weights_under_the_new_encoding(run):
    found = evaluate(run, YARN)
    model, step = load_model(run, Run(run).config)
    yarn = find("position", "./yarn.py:YaRN")
    length = int(Run(run).config.task.token_length(6))
    for layer in model.attention_layers().values():
        assert layer.position.name == "rope"
        layer.position = yarn(base=500, scale=4, train_length=length)
    expected = list(evaluate_lengths(model, ladder_of(Run(run).config), step=step))
    assert [(c.correct, c.outcomes) for c in found] == [(c.correct, c.outcomes) for c in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.token_accuracy == pytest.approx(theirs.token_accuracy, abs=1e-6)


def test_a_class_is_known_by_its_code(run):
    evaluate(run, YARN)
    file = Path("yarn.py")
    file.write_text(file.read_text() + "\n# Only a comment.\n")
    evaluate(run, YARN)
    assert len(RunRecord.load(run).ladder) == 2
    shutil.copy(file, "other.py")
    other = Path("other.py")
    other.write_text(other.read_text().replace("0.1 *", "0.2 *"))
    evaluate(run, ["position=./other.py:YaRN", "position.scale=4"])
    changes = [cell.changes for cell in RunRecord.load(run).ladder if cell.length == 4]
    assert [each["position.name"] for each in changes] == ["yarn", "yarn"]
    assert changes[0]["position.source"] != changes[1]["position.source"]


@pytest.mark.parametrize(
    ("word", "tensor"),
    [
        ("position=./t5.py:T5", r"position_state\.before \[2, 32\] would be new"),
        ("attention.scaling=none", r"scaling_state\.s would be gone"),
        ("attention.qk_norm=true", r"norm.* would be new, .* would be new"),
    ],
)
def test_other_tensors_are_refused_and_named(run, word, tensor):
    own = Run(run).config
    with pytest.raises(ValueError, match=tensor):
        check_tensors(own, with_changes(own, [word])[0])


def test_a_tensor_of_another_shape_is_refused():
    own = load_config(["position=rope"])
    changed = load_config(["position=rope", "model.d_ff=64"])
    with pytest.raises(ValueError, match=r"input\.weight \[128, 64\] would be \[64, 64\]"):
        check_tensors(own, changed)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("position.variant=linear", "position.variant is not an option of rope"),
        ("attention.backend=reference", "attention.backend has no effect on results"),
        ("model.layers=3", "model.layers cannot change"),
        ("position.fraction=0.3", "must be an even number"),
        ("position=yarn", "position=yarn is not known"),
    ],
)
def test_options_that_cannot_change_are_one_line(run, word, problem):
    with pytest.raises(ConfigError, match=problem):
        with_changes(Run(run).config, [word])


def test_members_of_a_pattern_change_one_by_one():
    words = ["position=[rope,nope]", "attention=[softmax,topk]", "model.layers=2"]
    own = load_config(words)
    change = ["position.pattern.0.base=50", "attention.pattern.1.normalizer.k=4"]
    config, changes = with_changes(own, change)
    assert changes == {"position.pattern.0.base": 50.0, "attention.pattern.1.normalizer.k": 4}
    assert config.position.of_layer(0).base == 50 and config.position.of_layer(1).name == "nope"
    with pytest.raises(ConfigError, match=r"change attention\.pattern\.0\.normalizer"):
        with_changes(own, ["attention.normalizer=topk"])
    assert with_changes(own, ["position=[rope,rope]"])[1]["position.pattern.1.name"] == "rope"
    shorter = with_changes(own, ["position=[rope]"])[1]
    assert shorter == {"position.pattern.1.name": None}


def test_a_mixer_has_nothing_that_could_change():
    own = load_config([f"mixer={PUBLISHED / 'lstm.py'}:LSTM", "position=nope"])
    with pytest.raises(ConfigError, match="mixer=lstm has no position or attention that could ch"):
        with_changes(own, ["position=rope"])
