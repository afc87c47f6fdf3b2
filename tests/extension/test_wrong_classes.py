"""Users' classes that are wrong: one line that names class and method, from every command."""

import re
from pathlib import Path

import pytest
from tiny import quick, tiny

from lcg.cli import main

FILE = Path(__file__).parent / "classes" / "wrong.py"
FEW = ("model.heads=4", "data.batch_size=4", "data.min_length=3")
TINY = quick(*FEW, "validation.lengths=4", "evaluation.lengths=4")

TASKS = {
    "Short": "Short.sample() returned a target of shape [{rows}, {short}], expected [{rows}, 4] or",
    "Symbol": "Symbol.sample() returned the symbol 8 in the source, expected 0 to 7",
    "Floats": "Floats.sample() returned a target of float64, expected whole numbers",
    "Negative": "Negative.sample() returned the symbol -1 in the target, expected 0 to 7",
    "Unscored": "Unscored.sample() returned a target with no scored position in row 0 of {rows}, "
    "expected at least one label",
    "NoneTask": "NoneTask.sample() returned None, expected (source, target)",
    "Lists": "Lists.sample() returned a list of {rows} as the source, expected a numpy array",
    "Raises": "Base.sample(): {file}:{line}: KeyError: 'x'",
    "RaisesValue": "Base.sample(): {file}:{line}: ValueError: operands could not be broadcast",
    "HalfLength": "HalfLength.source_length() returned",
    "Tag": "Tag.sample() returned IGNORE in the target, where every symbol is scored; declare kind",
    "Kind": "Kind.kind is 'taging', expected one of seq2seq, tagging, labelled, masked",
}
POSITIONS = {
    "BadBias": "BadBias.bias() returned a tensor of shape [3, 5, 7], expected a tensor that broad",
    "ShortPositions": "ShortPositions.positions() returned a tensor of shape [{short}], expected",
    "BadSlopes": "BadSlopes.slopes() returned a tensor of shape [5], expected a tensor of shape",
    "BadLearned": "BadLearned.learned() returned a list, expected a dict of names and tensors",
    "BadRotate": "BadRotate.rotate_queries() returned a tensor of shape",
    "OldRotate": "OldRotate.rotate_keys(self, k, positions) must take (self, k, ids, learned)",
    "OldBias": "AttributeError: a Tile has no q_positions; q_positions[:, None] is q_ids now",
    "OldPromise": "OldPromise.data_dependent is no longer needed: remove it",
    "BadState": "BadState.state() returned a tensor of shape",
    "BadEmbed": "BadEmbed.embed() returned a tensor of shape",
    "Leaks": "not causal: another token in the last place changes what is predicted before it",
    "Misspelt": "Misspelt.rotate_query() is no hook and would never be called; did you mean",
    "NoSuchSum": "NoSuchSum.cumulative names decay, and state() returns c",
    "RaisingBias": "RaisingBias.bias(): {file}:{line}: AttributeError: 'ParameterDict'",
}
ATTENTIONS = {
    "Wrong": "Wrong.weights() returned a tensor of shape",
    "Double": "Double.weights() returned a tensor of shape",
    "IntLearned": "IntLearned.learned() returned 'a' of torch.int64, expected a tensor of floating",
    "{scaling: FILE:BadScaling}": "BadScaling.__call__() returned a tensor of shape",
    "{output_norm: FILE:BadNorm}": "BadNorm.__call__() returned a tensor of shape",
    "{output_norm: FILE:LeaksMean}": "not causal: another token in the last place changes",
}
MIXERS = {
    "OnlyY": "OnlyY.make() must return a module whose forward takes (x, state): too many",
    "NoMake": "NoMake lacks make(sizes), which returns the module of a layer",
}


def told(text: str, line: str) -> bool:
    """The line says `text`, in which what is in braces stands for anything."""
    parts = re.split(r"\{\w+\}", text)
    place = 0
    for part in parts:
        place = line.find(part, place)
        if place < 0:
            return False
    return line.startswith("lcg: ")


def failed(words: list[str], capsys) -> str:
    """The last line of what a command that exits with 2 says."""
    capsys.readouterr()
    assert main(words) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.replace("\r", "\n").rstrip("\n").rpartition("\n")[2]


@pytest.mark.parametrize("name", TASKS)
def test_a_wrong_task(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ("show", "length=4"), ("train", *TINY):
        line = failed([words[0], f"task={FILE}:{name}", *words[1:]], capsys)
        assert told(TASKS[name], line), line


@pytest.mark.parametrize("name", POSITIONS)
def test_a_wrong_encoding(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = failed(["train", f"position={FILE}:{name}", *TINY], capsys)
    assert told(POSITIONS[name], line), line


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_wrong_attention(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = name.replace("FILE", str(FILE)) if "FILE" in name else f"{FILE}:{name}"
    line = failed(["train", f"attention={chosen}", *TINY], capsys)
    assert told(ATTENTIONS[name], line), line


@pytest.mark.parametrize("name", MIXERS)
def test_a_wrong_mixer(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = failed(["train", f"mixer={FILE}:{name}", *TINY], capsys)
    assert told(MIXERS[name], line), line


def test_errors_at_longer_lengths_only(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", f"position={FILE}:Long", "name=long", *TINY]
    assert main(words) == 0
    for command in (["eval", "lengths=8", "samples=4"], ["inspect", "--length", "8"]):
        line = failed([command[0], "runs/long", *command[1:]], capsys)
        assert told("Long.bias(): {file}:{line}: IndexError: beyond the table", line), line


@pytest.mark.parametrize("name", ["Later", "LaterShape"])
def test_a_worker_s_error_is_one_line_too(name, capsys, tmp_path, monkeypatch):
    """Data workers check batches that the main process has not drawn before."""
    monkeypatch.chdir(tmp_path)
    words = [*TINY, f"task={FILE}:{name}", "data.workers=1", "trainer.steps=40"]
    line = failed(["train", *tiny(*words)], capsys)
    said = {
        "Later": "Base.sample(): {file}:{line}: KeyError: 'later'",
        "LaterShape": "LaterShape.sample() returned None, expected (source, target)",
    }
    assert told(said[name], line), line
