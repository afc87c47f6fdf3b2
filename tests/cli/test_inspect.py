"""`lcg inspect`: text on stdout, pictures beside the run, and one line for what cannot be."""

import shutil
from dataclasses import replace

import pytest

from lcg.diagnostics import errors


@pytest.fixture
def run(train_once, tmp_path):
    return shutil.copytree(train_once("attention=asentmax", "model.layers=2"), tmp_path / "run")


def test_text_and_pictures(call, run):
    code, out, err = call("inspect", str(run), "--length", "8", "--samples", "12", "--failed", "2")
    assert code == 0, err
    assert "copy at length 8: 0 of 12 samples right" in out
    assert "first errors of 12 samples over positions 1 to 9" in out
    assert "\nsample 0:" in out and "\nsample 1:" in out and "\nsample 2:" not in out
    assert out.count("target ") == 2 and "!" in out
    heads = out.partition("layer  head")[2].splitlines()
    assert [line.split()[:2] for line in heads[1:5]] == [
        [f"layer_{a}", b] for a in "01" for b in "01"
    ]
    for column in ("slope", "support", "max w", "H/log n", "range", "scaler"):
        assert f"\n{column}  " in out, "every column is explained"
    assert "\nalpha  " not in out and "\nnull  " not in out, "nothing else is"
    folder = run / "plots" / "inspect_len_8"
    assert err.splitlines()[-2:] == [str(folder / f"layer_{i}.png") for i in (0, 1)]
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


def test_one_layer_and_some_heads_elsewhere(call, run, tmp_path):
    words = ("--samples", "2", "--layer", "1", "--heads", "1", "-o", str(tmp_path / "maps"))
    code, out, err = call("inspect", str(run), "--length", "300", *words)
    assert code == 0, err
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["layer_1.png"]
    heads = out.partition("layer  head")[2].splitlines()
    assert heads[1].split()[:2] == ["layer_1", "1"] and heads[2] == ""
    assert not (run / "plots" / "inspect_len_300").exists()


def test_no_failed_sample(call, run, monkeypatch):
    answer = errors.answer

    def all_right(*words):
        found = answer(*words)
        return replace(found, predicted=found.target.copy())

    monkeypatch.setattr(errors, "answer", all_right)
    code, out, _ = call("inspect", str(run), "--length", "4", "--samples", "5")
    assert code == 0
    assert "5 of 5 samples right\nno sample failed" in out
    assert "layer  head" in out


MISTAKES = {
    "": "the following arguments are required: run, --length",
    "nowhere --length 4": "nowhere does not exist",
    "RUN --length 0": "copy: length 0 is too short",
    "RUN --length four": "invalid int value: 'four'",
    "RUN --length 4 --layer 2": "--layer 2: the model has 2 layers, 0 to 1",
    "RUN --length 4 --heads 0,5": "--heads 5: the model has 2 heads, 0 to 1",
    "RUN --length 4 --heads first": "--heads first: give numbers from 0 to 1",
    "RUN --length 4 --samples 0": "--samples must be at least 1",
    "RUN --length 4 -o RUN/config.yaml": "is a file; -o takes a folder",
    "RUN --length 4 --device gpu9": "--device gpu9 cannot be used",
    "RUN --length 90000000": "--length 90000000 is too large for this machine",
    "RUN --length 4 --colour": "there is no option --colour",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(call, run, words, written):
    before = written()
    code, out, err = call("inspect", *words.replace("RUN", str(run)).split())
    assert (code, out) == (2, "")
    assert MISTAKES[words] in err and err.count("\n") == 1
    assert written() == before


def test_a_run_without_a_checkpoint(call, run):
    (run / "checkpoints" / "best.ckpt").unlink()
    code, _, err = call("inspect", str(run), "--length", "4")
    assert code == 2 and "has no best.ckpt yet" in err and err.count("\n") == 1


@pytest.mark.slow
def test_length_512(call, run):
    """`python -m benchmarks.commands` prints how long it takes."""
    assert call("inspect", str(run), "--length", "512")[0] == 0


@pytest.mark.parametrize("words", [("inspect", "--length", "8"), ("eval", "lengths=8")])
def test_a_run_of_kernels_is_read_without_a_device(call, run, monkeypatch, words):
    """A triton run is read by another backend where triton cannot run."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    file = run / "config.yaml"
    text = file.read_text()
    assert "backend: auto" in text
    file.write_text(text.replace("backend: auto", "backend: triton"))
    command, *options = words
    code, _, err = call(command, str(run), *options)
    assert code == 0, err
    assert f"{run}: attention.backend=triton needs" in err and "using backend=auto" in err
